//! For each anomaly the smallest history that has it, and one beside it that has not.

use super::{ALL, Isolation, Kind, Level, Status, Transaction, at_once, check, finds, is_clean, one_after_the_other};

#[test]
fn unwritten_elements() {
    let good = [at_once(1).append("x", 1), at_once(2).read("x", &[1])];
    is_clean(&good, &ALL);
    let bad = [at_once(1).append("x", 1), at_once(2).read("x", &[1, 9])];
    for level in ALL {
        finds(&bad, level, Kind::Unwritten, &[1]);
    }
}

#[test]
fn duplicate_elements() {
    let bad = [at_once(1).append("x", 1), at_once(2).append("x", 2), at_once(3).read("x", &[1, 2, 1])];
    for level in ALL {
        finds(&bad, level, Kind::Duplicate, &[2]);
    }
    // The same element in another list is another element.
    let good = [at_once(1).append("x", 1).append("y", 1), at_once(2).read("x", &[1]).read("y", &[1])];
    is_clean(&good, &ALL);
}

#[test]
fn a_transaction_sees_its_own_appends() {
    let good =
        [at_once(1).append("x", 1).read("x", &[1]).append("x", 2).read("x", &[1, 2]), at_once(2).read("x", &[1, 2])];
    is_clean(&good, &ALL);
    let blind = [at_once(1).append("x", 1).read("x", &[])];
    let moving = [at_once(1).read("x", &[]).read("x", &[2]), at_once(2).append("x", 2)];
    let lost = [at_once(1).read("x", &[2]).append("x", 1).read("x", &[1]), at_once(2).append("x", 2)];
    let early = [at_once(1).read("x", &[1]).append("x", 1)];
    for level in ALL {
        for bad in [&blind[..], &moving, &lost, &early] {
            finds(bad, level, Kind::Internal, &[0]);
        }
    }
}

#[test]
fn reads_that_disagree_on_the_order() {
    let appends = || [at_once(1).append("x", 1), at_once(2).append("x", 2)];
    let [one, two] = appends();
    let bad = [one, two, at_once(3).read("x", &[1, 2]), at_once(4).read("x", &[2, 1])];
    let [one, two] = appends();
    let good = [one, two, at_once(3).read("x", &[1, 2]), at_once(4).read("x", &[1])];
    is_clean(&good, &[Level::Serializable, Level::Snapshot]);
    for level in ALL {
        finds(&bad, level, Kind::IncompatibleOrder, &[3, 2]);
    }
}

#[test]
fn appends_of_one_transaction_keep_their_order() {
    let good = [at_once(1).append("x", 1).append("x", 2), at_once(2).read("x", &[1, 2])];
    is_clean(&good, &ALL);
    for wrong in [&[2, 1][..], &[2]] {
        let bad = [at_once(1).append("x", 1).append("x", 2), at_once(2).read("x", wrong)];
        finds(&bad, Level::Snapshot, Kind::IncompatibleOrder, &[0, 1]);
    }
}

#[test]
fn g1a_aborted_read() {
    let with = |status| [at_once(1).append("x", 1).status(status), at_once(2).read("x", &[1])];
    is_clean(&with(Status::Committed), &ALL);
    is_clean(&with(Status::Unknown), &ALL);
    for level in ALL {
        finds(&with(Status::Aborted), level, Kind::G1a, &[0, 1]);
    }
    // Nobody saw it.
    is_clean(&[at_once(1).append("x", 1).status(Status::Aborted), at_once(2).read("x", &[])], &ALL);
}

#[test]
fn g1b_intermediate_read() {
    let reads = |elements: &[u64]| [at_once(1).append("x", 1).append("x", 2), at_once(2).read("x", elements)];
    is_clean(&reads(&[1, 2]), &ALL);
    is_clean(&reads(&[]), &ALL);
    for level in ALL {
        finds(&reads(&[1]), level, Kind::G1b, &[0, 1]);
    }
    let later = at_once(3).read("x", &[1, 2]);
    let [writer, reader] = reads(&[1]);
    finds(&[writer, reader, later], Level::Snapshot, Kind::G1b, &[0, 1]);
}

#[test]
fn g0_dirty_write() {
    // On one list, and over two.
    let one = [at_once(1).append("x", 1).append("x", 3), at_once(2).append("x", 2), at_once(3).read("x", &[1, 2, 3])];
    let writers = || [at_once(1).append("x", 1).append("y", 1), at_once(2).append("x", 2).append("y", 2)];
    let [first, second] = writers();
    let two = [first, second, at_once(3).read("x", &[1, 2]), at_once(4).read("y", &[2, 1])];
    for level in ALL {
        finds(&one, level, Kind::G0, &[0, 1]);
        finds(&two, level, Kind::G0, &[0, 1]);
    }
    let [first, second] = writers();
    is_clean(&[first, second, at_once(3).read("x", &[1, 2]), at_once(4).read("y", &[1, 2])], &ALL);
}

#[test]
fn g1c_circular_information_flow() {
    let bad = [at_once(1).append("x", 1).read("y", &[1]), at_once(2).append("y", 1).read("x", &[1])];
    for level in ALL {
        finds(&bad, level, Kind::G1c, &[0, 1]);
    }
    let good = [at_once(1).append("x", 1).read("y", &[]), at_once(2).append("y", 1).read("x", &[1])];
    is_clean(&good, &ALL);
}

#[test]
fn lost_update() {
    let updates = |second: &[u64], end: &[u64]| {
        [
            at_once(1).read("x", &[]).append("x", 1),
            at_once(2).read("x", second).append("x", 2),
            Transaction::new(3, 200, 300).read("x", end),
        ]
    };
    is_clean(&updates(&[1], &[1, 2]), &ALL);
    for level in ALL {
        let report = finds(&updates(&[], &[1, 2]), level, Kind::LostUpdate, &[0, 1]);
        assert!(report.has(Kind::GSingle), "{report}");
        // One is overwritten by the other.
        finds(&updates(&[], &[2]), level, Kind::LostUpdate, &[0, 1]);
        // Nobody looks afterwards.
        finds(&updates(&[], &[2])[..2], level, Kind::LostUpdate, &[0, 1]);
    }
}

#[test]
fn g_single_read_skew() {
    let reads = |y: &[u64]| [at_once(1).append("x", 1).append("y", 1), at_once(2).read("x", &[1]).read("y", y)];
    is_clean(&reads(&[1]), &ALL);
    for level in ALL {
        let report = finds(&reads(&[]), level, Kind::GSingle, &[0, 1]);
        assert_eq!(report.anomalies.len(), 1, "{report}");
    }
}

#[test]
fn long_fork_is_not_even_a_snapshot() {
    let reads = |first: [&[u64]; 2], second: [&[u64]; 2]| {
        [
            at_once(1).append("x", 1),
            at_once(2).append("y", 1),
            at_once(3).read("x", first[0]).read("y", first[1]),
            at_once(4).read("x", second[0]).read("y", second[1]),
        ]
    };
    is_clean(&reads([&[1], &[]], [&[1], &[1]]), &ALL);
    for level in ALL {
        finds(&reads([&[1], &[]], [&[], &[1]]), level, Kind::GNonadjacent, &[0, 1, 2, 3]);
    }
}

#[test]
fn g2_write_skew_is_what_a_snapshot_allows() {
    let skew = [at_once(1).read("x", &[]).append("y", 1), at_once(2).read("y", &[]).append("x", 1)];
    is_clean(&skew, &[Level::Snapshot, Level::StrongSnapshot]);
    for level in [Level::Serializable, Level::StrictSerializable] {
        let report = finds(&skew, level, Kind::G2, &[0, 1]);
        assert_eq!(report.anomalies.len(), 1, "{report}");
    }
    // Of three, and with somebody who read what was appended.
    let three = [
        at_once(1).read("x", &[]).append("y", 1),
        at_once(2).read("y", &[]).append("z", 1),
        at_once(3).read("z", &[]).append("x", 1),
        at_once(4).read("x", &[1]).read("y", &[1]).read("z", &[1]),
    ];
    is_clean(&three, &[Level::Snapshot, Level::StrongSnapshot]);
    finds(&three, Level::Serializable, Kind::G2, &[0, 1, 2]);
    let good = [at_once(1).read("x", &[]).append("y", 1), at_once(2).read("y", &[1]).append("x", 1)];
    is_clean(&good, &ALL);
}

#[test]
fn as_each_transaction_declares() {
    let skew = |first, second| {
        [
            at_once(1).read("x", &[]).append("y", 1).isolation(first),
            at_once(2).read("y", &[]).append("x", 1).isolation(second),
        ]
    };
    is_clean(&skew(Isolation::Snapshot, Isolation::Snapshot), &[Level::Declared]);
    // The serializable one commits, and the other one began before that: it is right for both.
    is_clean(&skew(Isolation::Snapshot, Isolation::Serializable), &[Level::Declared]);
    finds(&skew(Isolation::Serializable, Isolation::Serializable), Level::Declared, Kind::G2, &[0, 1]);
    // A read-only transaction is one event. It must not see the second of two without the first, not even of snapshots.
    let anomaly = [
        at_once(1).read("x", &[]).read("y", &[]).append("x", 1).isolation(Isolation::Snapshot),
        at_once(2).read("y", &[]).append("y", 1).isolation(Isolation::Snapshot),
        at_once(3).read("x", &[]).read("y", &[1]),
    ];
    is_clean(&anomaly, &[Level::Declared, Level::Snapshot]);
    finds(&anomaly, Level::Serializable, Kind::G2, &[0, 1, 2]);
}

#[test]
fn a_stale_read_is_a_question_of_time() {
    let reads = |elements: &[u64]| one_after_the_other(vec![at_once(1).append("x", 1), at_once(2).read("x", elements)]);
    is_clean(&reads(&[1]), &ALL);
    is_clean(&reads(&[]), &[Level::Snapshot, Level::Serializable]);
    for level in [Level::StrongSnapshot, Level::StrictSerializable, Level::Declared] {
        let report = finds(&reads(&[]), level, Kind::RealTime, &[0, 1]);
        assert_eq!(report.anomalies.len(), 1, "{report}");
    }
    // What was not answered yet may be missed.
    let mut late = reads(&[]);
    late[0].completed = late[1].invoked;
    is_clean(&late, &ALL);
}

#[test]
fn a_process_sees_what_it_did_before() {
    let with = |process| [Transaction::new(1, 0, 10).append("x", 1), Transaction::new(process, 10, 20).read("x", &[])];
    is_clean(&with(2), &ALL);
    for level in [Level::StrongSnapshot, Level::StrictSerializable] {
        finds(&with(1), level, Kind::Process, &[0, 1]);
    }
    is_clean(&with(1), &[Level::Snapshot, Level::Serializable]);
}

#[test]
fn what_nobody_read_came_last() {
    // Both appended behind what the other one saw.
    let bad =
        [at_once(1).append("x", 1).read("y", &[]), at_once(2).append("y", 1).read("x", &[]), at_once(3).append("x", 2)];
    finds(&bad, Level::Serializable, Kind::G2, &[0, 1]);
    is_clean(&bad, &[Level::Snapshot]);
    // Of unknown ones nothing was seen: they need not have happened.
    let unknown: Vec<Transaction> = bad.into_iter().map(|bad| bad.status(Status::Unknown)).collect();
    is_clean(&unknown, &ALL);
}

#[test]
fn an_unknown_transaction_happened_whole_if_anything_of_it_was_seen() {
    let with = |y: &[u64]| {
        vec![at_once(1).append("x", 1).append("y", 1).status(Status::Unknown), at_once(2).read("x", &[1]).read("y", y)]
    };
    is_clean(&with(&[1]), &ALL);
    finds(&with(&[]), Level::Snapshot, Kind::GSingle, &[0, 1]);
    // It may have happened at any time after it was asked for.
    let late = [
        Transaction::new(1, 0, 0).append("x", 1).status(Status::Unknown),
        Transaction::new(2, 10, 20).read("x", &[]),
        Transaction::new(3, 30, 40).read("x", &[1]),
    ];
    is_clean(&late, &ALL);
    let early = [
        Transaction::new(1, 50, 0).append("x", 1).status(Status::Unknown),
        Transaction::new(2, 30, 40).read("x", &[1]),
    ];
    finds(&early, Level::StrictSerializable, Kind::RealTime, &[0, 1]);
}

#[test]
fn elements_must_be_unique() {
    let error = super::super::check(&[at_once(1).append("x", 1), at_once(2).append("x", 1)], Level::Snapshot);
    assert_eq!(error.unwrap_err().to_string(), "element 1 was appended to x twice: by T0 and by T1");
}

#[test]
fn explanations_say_who_missed_what() {
    let history = [
        at_once(1).read("x", &[]).append("y", 7).isolation(Isolation::Snapshot),
        at_once(2).read("y", &[]).append("x", 5),
    ];
    let report = check(&history, Level::Serializable);
    let expected = "\
G2 (anti-dependency cycle, write skew): a circle:
  T0 before T1: T0 did not see 5 in x, which T1 appended
  T1 before T0: T1 did not see 7 in y, which T0 appended
  T0: read(x) = [] append(y, 7); process 1, 0 to 100, of snapshot isolation
  T1: read(y) = [] append(x, 5); process 2, 0 to 100
";
    assert_eq!(report.to_string(), expected);
}
