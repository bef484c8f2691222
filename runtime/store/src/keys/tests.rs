//! The key encoding as a format: golden vectors, and the properties that everything else builds on.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const LAYOUT: Layout = Layout { slots: SlotCount::DEFAULT };

fn instance(function: &str, key: &str) -> Instance {
    Instance::parse(function, key).unwrap()
}

fn state(name: &str) -> StateName {
    name.parse().unwrap()
}

fn egress_name(name: &str) -> EgressName {
    name.parse().unwrap()
}

fn text_hex(text: &str) -> String {
    hex(text.as_bytes())
}

#[test]
fn keys_are_a_format() {
    let order = instance("order", "o-1");
    let slot = hex(&LAYOUT.slots.slot_of(&order.key).get().to_be_bytes());
    let who = format!("{}0001{}0001", text_hex("order"), text_hex("o-1"));
    let flow = FlowId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let golden = [
        (LAYOUT.state_value(&order, &state("total")), format!("{slot}01{who}{}0001", text_hex("total"))),
        (LAYOUT.state_entry(&order, &state("l"), &[0, 255, 1]), format!("{slot}02{who}6c000100ffff010001")),
        (LAYOUT.state_entry(&order, &state("l"), &[]), format!("{slot}02{who}6c00010001")),
        (LAYOUT.request(flow), "010203030405060708090a0b0c0d0e0f".to_owned()),
        (LAYOUT.inbox(&order, Slot::new(5), 258), format!("{slot}04{who}00050000000000000102")),
        (LAYOUT.timer(&order, 1, Slot::new(5), 2), format!("{slot}05000000000000000100050000000000000002")),
        (LAYOUT.egress(&order, &egress_name("out"), 3), format!("{slot}066f757400010000000000000003")),
        (LAYOUT.dead_letter(&order, Slot::new(5), 4), format!("{slot}07{who}00050000000000000004")),
        (LAYOUT.lane(Slot::new(5)), "000508".to_owned()),
        (meta("format"), "ffff00666f726d61740001".to_owned()),
    ];
    for (key, expected) in golden {
        assert_eq!(hex(&key), expected, "{:?}", parse(&key));
    }
    // Written out whole once, with the slot, which the others compute.
    assert_eq!(hex(&LAYOUT.state_value(&order, &state("s"))), GOLDEN_STATE_VALUE);
}

#[test]
fn rows_of_the_runtime_are_found_by_the_beginning_of_their_names() {
    let range = metas("member/");
    assert!(range.contains(&meta("member/1")) && range.contains(&meta("member/")));
    assert!(!range.contains(&meta("member")) && !range.contains(&meta("members")) && !range.contains(&meta("slots")));
}

const GOLDEN_STATE_VALUE: &str = "02a2016f7264657200016f2d310001730001";

#[test]
fn bytes_that_no_layout_makes_are_refused() {
    let good = LAYOUT.inbox(&instance("order", "o-1"), Slot::new(0), 1);
    let mut longer = good.to_vec();
    longer.push(0);
    let cases: [(&[u8], &str); 8] = [
        (&[], "too short"),
        (&[0, 1], "too short"),
        (&good[..good.len() - 1], "too short"),
        (&longer, "1 bytes follow"),
        (&[0, 1, 99], "no table 99"),
        (&[0, 1, 0], "no table 0"),
        (&[0xff, 0xff, 3], "belongs to no instance"),
        (&[0, 1, 6, b'a', 0, 7], "a zero is followed by 0x07"),
    ];
    for (key, problem) in cases {
        let error = parse(key).unwrap_err();
        assert!(error.to_string().contains(problem), "{error} should say {problem:?}");
    }
    let bad_name = KeyBuilder::new(Slot::new(1), Table::Egress).text("Not A Name").number(1).build();
    assert!(parse(&bad_name).unwrap_err().problem.contains("egress name"));
}

#[test]
fn an_egress_is_read_after_and_trimmed_until_a_sequence() {
    let (entry, out) = (instance("order", "o-1"), egress_name("out"));
    let slot = LAYOUT.slots.slot_of(&entry.key);
    for position in [0, 1, 7, u64::MAX - 1, u64::MAX] {
        for sequence in [0, 1, 6, 7, 8, u64::MAX - 1, u64::MAX] {
            let row = LAYOUT.egress(&entry, &out, sequence);
            assert_eq!(LAYOUT.egresses(slot, &out, position).contains(&row), sequence > position);
            assert_eq!(LAYOUT.egresses_until(slot, &out, position).contains(&row), sequence <= position);
        }
    }
    let other = LAYOUT.egress(&entry, &egress_name("outer"), 5);
    assert!(!LAYOUT.egresses(slot, &out, 0).contains(&other));
    assert!(!LAYOUT.egresses_until(slot, &out, u64::MAX).contains(&other));
}

/// Short names over a small alphabet, so that prefixes of one another and equal ones come up all the time.
fn function_names() -> impl Strategy<Value = FunctionName> {
    "[ab]([-ab]{0,2}[ab])?".prop_map(|name| name.parse().unwrap())
}

fn state_names() -> impl Strategy<Value = StateName> {
    "[aB][_aB-]{0,2}".prop_map(|name| name.parse().unwrap())
}

/// Keys with what could be mistaken for structure: separators, the highest code points, braces.
fn keys() -> impl Strategy<Value = Key> {
    let parts = prop::sample::select(vec!["a", "b", "/", "{", "}", "\u{7fff}", "\u{10ffff}", "ÿ", " ", "!"]);
    prop::collection::vec(parts, 1..5).prop_map(|parts| parts.concat().parse().unwrap())
}

fn instances() -> impl Strategy<Value = Instance> {
    (function_names(), keys()).prop_map(|(function, key)| Instance::new(function, key))
}

fn entries() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0x00, 0x01, 0x02, 0x61, 0xfe, 0xff]), 0..5)
}

fn sequences() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, any::<u64>(), Just(u64::MAX)]
}

fn senders() -> impl Strategy<Value = Slot> {
    prop::sample::select(vec![0, 1, 255, 256, u16::MAX - 1]).prop_map(Slot::new)
}

/// Few slots, so that different instances meet in one.
fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(vec![1, 2, u16::MAX]).prop_map(|slots| Layout::new(SlotCount::new(slots).unwrap()))
}

/// Every kind of row, with the key that the layout gives it.
fn rows(layout: Layout) -> impl Strategy<Value = (RowKey, Bytes)> {
    let slot_of = move |instance: &Instance| layout.slots().slot_of(&instance.key);
    prop_oneof![
        (instances(), state_names()).prop_map(move |(instance, state)| {
            let key = layout.state_value(&instance, &state);
            (RowKey::StateValue { slot: slot_of(&instance), instance, state }, key)
        }),
        (instances(), state_names(), entries()).prop_map(move |(instance, state, entry)| {
            let key = layout.state_entry(&instance, &state, &entry);
            (RowKey::StateEntry { slot: slot_of(&instance), instance, state, entry: entry.into() }, key)
        }),
        (0..3_u16, any::<[u8; 13]>()).prop_map(move |(slot, digest)| {
            let mut flow = [0; FlowId::BYTES];
            flow[..2].copy_from_slice(&slot.to_be_bytes());
            flow[2..].copy_from_slice(&digest);
            let flow = FlowId::from_bytes(flow);
            (RowKey::Request { flow }, layout.request(flow))
        }),
        (instances(), senders(), sequences()).prop_map(move |(target, from, sequence)| {
            let key = layout.inbox(&target, from, sequence);
            (RowKey::Inbox { slot: slot_of(&target), target, from, sequence }, key)
        }),
        (instances(), senders(), sequences(), sequences()).prop_map(move |(target, from, due_unix_ms, sequence)| {
            let key = layout.timer(&target, due_unix_ms, from, sequence);
            (RowKey::Timer { slot: slot_of(&target), due_unix_ms, from, sequence }, key)
        }),
        (instances(), function_names(), sequences()).prop_map(move |(entry, name, sequence)| {
            let egress = egress_name(name.as_str());
            let key = layout.egress(&entry, &egress, sequence);
            (RowKey::Egress { slot: slot_of(&entry), egress, sequence }, key)
        }),
        (instances(), senders(), sequences()).prop_map(move |(target, from, sequence)| {
            let key = layout.dead_letter(&target, from, sequence);
            (RowKey::DeadLetter { slot: slot_of(&target), target, from, sequence }, key)
        }),
        senders().prop_map(move |slot| (RowKey::Lane { slot }, layout.lane(slot))),
        "[a-c]{0,3}".prop_map(|name| (RowKey::Meta { name: name.clone() }, meta(&name))),
    ]
}

fn two_rows() -> impl Strategy<Value = ((RowKey, Bytes), (RowKey, Bytes))> {
    layouts().prop_flat_map(|layout| (rows(layout), rows(layout)))
}

/// The tuple that a key stands for, in the order of its parts. Compared with the derived order of vectors and numbers.
fn tuple(row: &RowKey) -> (u16, u8, Vec<Vec<u8>>) {
    let text = |text: &str| text.as_bytes().to_vec();
    let number = |number: u64| number.to_be_bytes().to_vec();
    let sent = |from: &Slot, sequence: &u64| vec![from.get().to_be_bytes().to_vec(), number(*sequence)];
    let of = |instance: &Instance| vec![text(instance.function.as_str()), text(instance.key.as_str())];
    let with = |mut parts: Vec<Vec<u8>>, more: Vec<Vec<u8>>| {
        parts.extend(more);
        parts
    };
    match row {
        RowKey::StateValue { slot, instance, state } => (slot.get(), 1, with(of(instance), vec![text(state.as_str())])),
        RowKey::StateEntry { slot, instance, state, entry } => {
            (slot.get(), 2, with(of(instance), vec![text(state.as_str()), entry.to_vec()]))
        }
        RowKey::Request { flow } => (flow.slot().get(), 3, vec![flow.as_bytes().to_vec()]),
        RowKey::Inbox { slot, target, from, sequence } => (slot.get(), 4, with(of(target), sent(from, sequence))),
        RowKey::Timer { slot, due_unix_ms, from, sequence } => {
            (slot.get(), 5, with(vec![number(*due_unix_ms)], sent(from, sequence)))
        }
        RowKey::Egress { slot, egress, sequence } => (slot.get(), 6, vec![text(egress.as_str()), number(*sequence)]),
        RowKey::DeadLetter { slot, target, from, sequence } => (slot.get(), 7, with(of(target), sent(from, sequence))),
        RowKey::Lane { slot } => (slot.get(), 8, Vec::new()),
        RowKey::Meta { name } => (u16::MAX, 0, vec![text(name)]),
    }
}

fn owner(row: &RowKey) -> Option<&Instance> {
    match row {
        RowKey::StateValue { instance, .. } | RowKey::StateEntry { instance, .. } => Some(instance),
        RowKey::Inbox { target, .. } | RowKey::DeadLetter { target, .. } => Some(target),
        RowKey::Request { .. }
        | RowKey::Timer { .. }
        | RowKey::Egress { .. }
        | RowKey::Lane { .. }
        | RowKey::Meta { .. } => None,
    }
}

/// The same cases in every run, and no files beside the sources.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 2_000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_key_is_parsed_to_what_it_was_made_of((row, key) in layouts().prop_flat_map(rows)) {
        prop_assert_eq!(parse(&key).unwrap(), row);
    }

    #[test]
    fn keys_are_injective_and_ordered_as_their_tuples(((a, a_key), (b, b_key)) in two_rows()) {
        prop_assert_eq!(a == b, a_key == b_key);
        prop_assert_eq!(tuple(&a).cmp(&tuple(&b)), a_key.cmp(&b_key));
    }

    #[test]
    fn a_range_holds_exactly_its_instance(
        (layout, (row, key), of, name) in
            layouts().prop_flat_map(|layout| (Just(layout), rows(layout), instances(), state_names()))
    ) {
        let owned = owner(&row) == Some(&of);
        let is_value = matches!(row, RowKey::StateValue { .. });
        let is_entry = matches!(row, RowKey::StateEntry { .. });
        prop_assert_eq!(layout.state_values(&of).contains(&key), owned && is_value);
        prop_assert_eq!(layout.all_entries(&of).contains(&key), owned && is_entry);
        let of_state = matches!(&row, RowKey::StateEntry { state, .. } if *state == name);
        prop_assert_eq!(layout.state_entries(&of, &name).contains(&key), owned && of_state);
    }

    #[test]
    fn the_range_of_a_function_holds_all_its_instances_of_the_slot(
        (layout, (row, key), function) in
            layouts().prop_flat_map(|layout| (Just(layout), rows(layout), function_names()))
    ) {
        let slot = Slot::new(0);
        let held = |kind: u8| {
            let (row_slot, table, _) = tuple(&row);
            row_slot == 0 && table == kind && owner(&row).is_some_and(|owner| owner.function == function)
        };
        prop_assert_eq!(layout.state_values_of_function(slot, &function).contains(&key), held(1));
        prop_assert_eq!(layout.state_entries_of_function(slot, &function).contains(&key), held(2));
    }

    #[test]
    fn the_range_of_a_table_holds_exactly_its_rows_of_the_slot(
        (layout, (row, key)) in layouts().prop_flat_map(|layout| (Just(layout), rows(layout)))
    ) {
        let (row_slot, table, _) = tuple(&row);
        for slot in [0, 1] {
            let held = |kind: u8| row_slot == slot && table == kind;
            let slot = Slot::new(slot);
            prop_assert_eq!(layout.requests(slot).contains(&key), held(3));
            prop_assert_eq!(layout.inboxes(slot).contains(&key), held(4));
            prop_assert_eq!(layout.timers(slot).contains(&key), held(5));
            prop_assert_eq!(layout.waiting(slot).contains(&key), held(4) || held(5));
        }
    }

    #[test]
    fn a_part_of_a_lane_holds_exactly_what_was_sent_in_between(
        (layout, (row, key), to, lane) in
            layouts().prop_flat_map(|layout| (Just(layout), rows(layout), instances(), senders())),
        after in prop::option::of(sequences()),
        before in sequences(),
    ) {
        let held = match &row {
            RowKey::Inbox { target, from, sequence, .. } => {
                *target == to && *from == lane && after.is_none_or(|after| *sequence > after) && *sequence < before
            }
            _ => false,
        };
        let range = layout.inbox_between(&to, lane, after, before);
        prop_assert_eq!(!range.is_empty() && range.contains(&key), held);
    }

    #[test]
    fn any_bytes_are_either_refused_or_a_key_of_ours(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        // Must not panic; what is accepted must be the one encoding of what it names.
        if let Ok(row) = parse(&bytes) {
            let again = match &row {
                RowKey::Request { flow } => LAYOUT.request(*flow),
                RowKey::Meta { name } => meta(name),
                RowKey::Timer { slot, due_unix_ms, from, sequence } => {
                    KeyBuilder::new(*slot, Table::Timer).number(*due_unix_ms).slot(*from).number(*sequence).build()
                }
                RowKey::Lane { slot } => LAYOUT.lane(*slot),
                other => panic!("random bytes made {other:?}"),
            };
            prop_assert_eq!(&again[..], &bytes[..]);
        }
    }
}
