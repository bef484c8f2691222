use super::*;

fn instance(name: &str) -> Instance {
    Instance::parse("f", name).unwrap()
}

fn handler() -> HandlerName {
    "h".parse().unwrap()
}

fn tree() -> Tree {
    Tree::new(Limits::default(), instance("entry"), handler())
}

fn start(tree: &mut Tree, parent: CallId, name: &str) -> CallId {
    let call = tree.call(parent, instance(name), handler()).unwrap();
    assert_eq!(tree.turn(call), Turn::Now);
    call
}

fn write(row: &str, value: &str) -> Effects {
    let row = Bytes::copy_from_slice(row.as_bytes());
    Effects { writes: vec![(row, Some(Bytes::copy_from_slice(value.as_bytes())))], ..Effects::default() }
}

fn seen(tree: &Tree, call: CallId, row: &str) -> Option<String> {
    let value = tree.lookup(call, &Bytes::copy_from_slice(row.as_bytes()))??;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn success_merges_into_the_caller_and_rejection_leaves_nothing() {
    let mut tree = tree();
    let kept = start(&mut tree, CallId::ENTRY, "a");
    tree.finish(kept, write("a", "1")).unwrap();
    let rejected = start(&mut tree, CallId::ENTRY, "b");
    let below = start(&mut tree, rejected, "c");
    tree.finish(below, write("c", "1")).unwrap();
    assert_eq!(seen(&tree, rejected, "c").as_deref(), Some("1"));
    tree.discard(rejected);
    tree.finish(CallId::ENTRY, write("entry", "1")).unwrap();
    let rows: Vec<Bytes> = tree.take_effects().rows.into_keys().collect();
    assert_eq!(rows, ["a", "entry"]);
}

#[test]
fn a_later_call_sees_what_an_earlier_one_wrote() {
    let mut tree = tree();
    let first = start(&mut tree, CallId::ENTRY, "a");
    tree.finish(first, write("a", "1")).unwrap();
    let second = start(&mut tree, CallId::ENTRY, "a");
    assert_eq!(seen(&tree, second, "a").as_deref(), Some("1"));
}

#[test]
fn siblings_on_one_instance_run_one_after_the_other() {
    let mut tree = tree();
    let first = start(&mut tree, CallId::ENTRY, "a");
    let second = tree.call(CallId::ENTRY, instance("a"), handler()).unwrap();
    assert_eq!(tree.turn(second), Turn::Wait);
    tree.finish(first, write("a", "1")).unwrap();
    assert_eq!(tree.turn(second), Turn::Now);
    assert_eq!(seen(&tree, second, "a").as_deref(), Some("1"));
}

/// A cousin must not run on an instance whose writes are still in an unfinished sibling's overlay.
#[test]
fn an_instance_stays_with_the_caller_of_a_finished_call() {
    let mut tree = tree();
    let left = start(&mut tree, CallId::ENTRY, "left");
    let right = start(&mut tree, CallId::ENTRY, "right");
    let below_left = start(&mut tree, left, "x");
    tree.finish(below_left, write("x", "1")).unwrap();
    let below_right = tree.call(right, instance("x"), handler()).unwrap();
    assert_eq!(tree.turn(below_right), Turn::Wait);
    tree.finish(left, Effects::default()).unwrap();
    assert_eq!(tree.turn(below_right), Turn::Now);
    assert_eq!(seen(&tree, below_right, "x").as_deref(), Some("1"));
}

#[test]
fn an_instance_stays_with_the_caller_of_a_rejected_call() {
    let mut tree = tree();
    let (left, right) = (start(&mut tree, CallId::ENTRY, "left"), start(&mut tree, CallId::ENTRY, "right"));
    let wrote = start(&mut tree, left, "shared");
    tree.finish(wrote, write("shared", "1")).unwrap();
    let rejected = start(&mut tree, left, "shared");
    tree.discard(rejected);
    let sibling = tree.call(right, instance("shared"), handler()).unwrap();
    assert_eq!(tree.turn(sibling), Turn::Wait, "it would not see what the caller of the rejected call wrote before");
    tree.finish(left, Effects::default()).unwrap();
    assert_eq!(tree.turn(sibling), Turn::Now);
    assert_eq!(seen(&tree, sibling, "shared").as_deref(), Some("1"));
}

#[test]
fn a_ring_of_waits_is_found_and_sequential_calls_have_none() {
    let mut tree = tree();
    let left = start(&mut tree, CallId::ENTRY, "left");
    let right = start(&mut tree, CallId::ENTRY, "right");
    let on_x = start(&mut tree, left, "x");
    let on_y = start(&mut tree, right, "y");
    let left_waits = tree.call(on_x, instance("y"), handler()).unwrap();
    assert_eq!(tree.turn(left_waits), Turn::Wait);
    let right_waits = tree.call(on_y, instance("x"), handler()).unwrap();
    assert_eq!(tree.turn(right_waits), Turn::Deadlock);

    let mut tree = self::tree().sequential();
    let left = start(&mut tree, CallId::ENTRY, "left");
    let right = tree.call(CallId::ENTRY, instance("right"), handler()).unwrap();
    assert_eq!(tree.turn(right), Turn::Wait);
    let below = start(&mut tree, left, "x");
    tree.finish(below, Effects::default()).unwrap();
    tree.finish(left, Effects::default()).unwrap();
    assert_eq!(tree.turn(right), Turn::Now);
}

#[test]
fn calls_that_outlive_their_caller_belong_to_its_caller() {
    let mut tree = tree();
    let middle = start(&mut tree, CallId::ENTRY, "middle");
    let spawned = start(&mut tree, middle, "spawned");
    tree.finish(middle, write("middle", "1")).unwrap();
    tree.finish(spawned, write("spawned", "1")).unwrap();
    tree.finish(CallId::ENTRY, Effects::default()).unwrap();
    assert_eq!(tree.take_effects().rows.len(), 2);
}

#[test]
fn a_rejected_caller_takes_its_spawns_with_it() {
    let mut tree = tree();
    let middle = start(&mut tree, CallId::ENTRY, "middle");
    let spawned = start(&mut tree, middle, "spawned");
    tree.discard(middle);
    assert!(tree.is_discarded(spawned));
    assert_eq!(start(&mut tree, CallId::ENTRY, "spawned").index(), 3);
}

#[test]
fn limits_name_themselves() {
    let limits = Limits { call_depth_max: 3, calls_max: 6, fan_out_max: 2, writes_max: 1, ..Limits::default() };
    let mut tree = Tree::new(limits, instance("entry"), handler());
    let a = start(&mut tree, CallId::ENTRY, "a");
    let b = start(&mut tree, a, "b");
    let check = |result: Result<CallId, LimitError>, reason: &str| assert_eq!(result.unwrap_err().reason(), reason);
    check(tree.call(b, instance("c"), handler()), "call-depth");
    check(tree.call(a, instance("entry"), handler()), "call-cycle");
    let _second = start(&mut tree, CallId::ENTRY, "d");
    check(tree.call(CallId::ENTRY, instance("e"), handler()), "fan-out");
    tree.finish(b, write("b", "1")).unwrap();
    assert_eq!(tree.finish(a, write("a", "1")).unwrap_err().reason(), "too-many-writes");
}
