//! Each mechanism is needed: without it, a check turns red that is green with it.
//!
//! A check drives a whole runtime, functions included, into the situation that its mechanism is for. Everything of a
//! check runs on one thread, so that a mechanism can be turned off for it alone. The page `docs/src/how-we-know.md` is
//! made of the table below.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]
#![allow(dead_code, reason = "the support modules are shared by several tests")]

use std::any::Any;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tandem_model::mechanism::{Mechanism, sabotage};
use tandem_model::outcome::FlowRecord;
use tokio::runtime::Builder;

#[path = "mechanisms/calls.rs"]
mod calls;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "../../runtime/tests/support/held.rs"]
mod held;
#[path = "mechanisms/once.rs"]
mod once;
#[path = "mechanisms/order.rs"]
mod order;
#[path = "mechanisms/pods.rs"]
mod pods;
#[path = "mechanisms/release.rs"]
mod release;
#[path = "../../runtime/tests/support/script.rs"]
mod script;
#[path = "../../runtime/tests/support/stage.rs"]
mod stage;
#[path = "mechanisms/tikv.rs"]
mod tikv;
#[path = "mechanisms/worlds.rs"]
mod worlds;

/// What a check panics with if what the mechanism claims is not so. Any other panic is a mistake of the check.
pub(crate) const BROKEN: &str = "the claim is broken";

/// Fails because of the claim, with what was found.
macro_rules! claim {
    ($found:expr, $expected:expr) => {
        let (found, expected) = (&$found, &$expected);
        assert!(found == expected, "{}: {found:?} is not {expected:?}", crate::BROKEN);
    };
}
pub(crate) use claim;

/// What a flow that has to commit returned.
pub(crate) async fn committed(flow: impl Future<Output = Arc<FlowRecord>>) -> i64 {
    let record = flow.await;
    stage::result(&record)
}

struct Check {
    clause: &'static str,
    mechanism: Mechanism,
    module: &'static str,
    name: &'static str,
}

/// The clause of the contract, the mechanism, and the check that needs it.
macro_rules! checks {
    ($($module:ident { $($clause:ident $mechanism:ident $check:ident;)* })*) => {
        const CHECKS: &[Check] = &[$($(Check {
            clause: stringify!($clause),
            mechanism: Mechanism::$mechanism,
            module: stringify!($module),
            name: stringify!($check),
        },)*)*];

        $($(
            #[test]
            fn $check() {
                prove(Mechanism::$mechanism, $module::$check);
            }
        )*)*
    };
}

checks! {
    calls {
        C1 RejectionDiscards a_handled_rejection_undoes_what_was_called_below_it;
        C1 OverlayOrder the_later_of_two_writes_counts;
        C2 InstanceOwnership parallel_calls_on_one_instance_lose_no_update;
        C2 AheadCompared code_that_ran_ahead_on_what_never_was_does_not_count;
        C2 ViewExtension user_code_never_sees_two_times_at_once;
        C6 FreshAttempt an_attempt_leaves_nothing_to_the_next;
    }
    order {
        C2 SealingReads an_update_within_one_group_is_not_lost;
        C2 SealingRanges there_are_no_phantoms_within_one_group;
        C2 AbsenceIsRead an_absence_that_was_read_is_protected;
        C2 RejectedReads a_handled_no_rests_on_what_it_saw;
        C2 SnapshotWrites the_second_writer_of_a_snapshot_runs_again;
        C2 LaterGroupsFall what_was_built_on_a_failed_group_falls_with_it;
        C2 EpochCompared a_view_of_what_never_was_is_void;
        C9 StoreReads an_update_of_another_runtime_is_not_lost;
        C9 StoreRanges there_are_no_phantoms_of_another_runtime;
        C9 StoreSealedReads what_was_read_before_it_was_durable_is_validated_too;
        C9 EmbeddedWindow an_update_of_another_runtime_is_not_lost_on_disk;
    }
    once {
        C4 RecordWritten the_same_request_again_has_no_effect;
        C4 RecordAbsence two_runtimes_cannot_both_run_a_request;
        C4 DigestCompared another_body_under_the_same_id_is_refused;
        C4 Retention a_record_is_kept_for_the_retention;
        C4 Deadline a_flow_that_is_not_done_at_its_deadline_has_no_effect;
        C5 UndeterminedDecided a_commit_that_was_lost_is_not_taken_for_done;
        C5 OwnRecord the_record_of_another_run_is_not_taken_for_ones_own;
        C5 NoCancelAfterSealing nothing_is_said_of_a_sealed_flow_before_its_commit;
    }
    pods {
        C2 SnapshotDurable a_snapshot_of_what_is_not_durable_is_validated;
        C7 LaneNumbers numbers_of_a_lane_follow_commits_of_any_runtime;
        C7 LaneRead no_runtime_delivers_before_what_another_one_released;
        C9 DrainRoute a_runtime_that_stops_passes_requests_on;
        C7 EgressSettled whoever_resumes_misses_no_record_of_another_runtime;
        C9 AgreedTurns a_slow_flow_commits_though_fast_ones_elsewhere_never_let_go;
    }
    release {
        C3 ReleaseAfterDurable nothing_leaves_before_the_commit_is_durable;
        C3 ReadOnlyDurable a_read_only_flow_sees_only_what_is_durable;
        C3 EmbeddedSync what_was_answered_is_on_disk;
        C1 MessagesWritten a_message_is_delivered;
        C1 MessageConsumed a_message_is_consumed_with_its_effect;
        C7 ReleaseOrder egress_records_leave_in_the_order_of_the_commits;
        C7 LaneOrder messages_of_one_sender_run_in_order;
        C7 VersionsReserved sequences_grow_across_restarts;
    }
    tikv {
        C2 TikvReads of_two_who_change_what_the_other_read_one_commits;
        C2 TikvAbsences of_two_who_saw_nothing_one_commits;
        C2 TikvRanges of_two_who_add_to_the_range_of_the_other_one_commits;
        C2 TikvGuards an_update_since_an_old_snapshot_is_not_lost;
        C1 TikvStartOnce two_commits_from_one_snapshot_are_two_transactions;
        C2 TikvOnePhase one_phase_is_not_for_those_who_only_read_something;
        C2 TikvCommitTime a_commit_is_true_at_its_own_time;
        C2 TikvTooEarly what_has_to_commit_later_is_validated_again;
        C5 TikvLostCommit a_lost_commit_is_not_called_rejected;
        C5 TikvLostOnePhase a_late_commit_in_one_phase_does_not_come_after_the_answer;
        C5 TikvUndeterminedFloor what_was_undetermined_stays_as_it_was_found;
        C1 TikvAbsentPrimary a_lock_without_its_primary_is_not_just_removed;
    }
}

/// Shows that a check passes with a mechanism, and fails without it because of what the mechanism claims.
fn prove<F: Future<Output = ()>>(mechanism: Mechanism, check: impl Fn() -> F + Copy + Send + 'static) {
    if let Err(panic) = run(None, check) {
        std::panic::resume_unwind(panic);
    }
    let Err(panic) = run(Some(mechanism), check) else { panic!("without {mechanism:?} this passes as well") };
    let why = text_of(panic.as_ref());
    assert!(why.contains(BROKEN), "without {mechanism:?} this fails for another reason: {why}");
}

/// Runs a check on a thread of its own.
fn run<F: Future<Output = ()>>(
    without: Option<Mechanism>,
    check: impl Fn() -> F + Send + 'static,
) -> thread::Result<()> {
    let checking = thread::spawn(move || {
        let _without = without.map(sabotage::without);
        Builder::new_current_thread().enable_all().build().unwrap().block_on(check());
    });
    checking.join()
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

#[test]
fn every_mechanism_has_a_check() {
    let unchecked =
        Mechanism::all().iter().filter(|mechanism| CHECKS.iter().all(|check| check.mechanism != **mechanism));
    assert_eq!(unchecked.collect::<Vec<_>>(), Vec::<&Mechanism>::new());
}

#[test]
fn random_worlds_miss_most_mechanisms() {
    const THREADS: usize = 2;
    let share = |first| worlds::MISSED.into_iter().skip(first).step_by(THREADS);
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || {
                for (mechanism, worlds) in share(first) {
                    let is_missed = worlds::is_missed(mechanism, worlds);
                    assert!(is_missed, "none of {worlds} worlds is bad without {mechanism:?}");
                }
            });
        }
    });
}

/// The page of the book.
fn page() -> String {
    let mut page = String::from(
        "# How we know\n\n\
         <!-- Generated by `UPDATE_DOCS=1 cargo test -p tandem-verify --test mechanisms`: edit verify/tests/mechanisms.rs, \
         or the claims in runtime/model/src/mechanism.rs. -->\n\n\
         Each promise in [Guarantees](guarantees.md) is kept by mechanisms. For each of them there is a switch that only tests have \
         (the feature `sabotage`, which no released binary has), and a check that is green with the mechanism and red \
         without it, because of what it claims and for no other reason. So no mechanism is there for nothing, and none can be lost unseen.\n\n\
         In the last column is *yes* where random worlds see it, too: whole runtimes on a simulated store with random programs, \
         faults and crashes (`verify/src/world.rs`). The others need what those worlds do not have, such as two runtimes on one store. \
         The mechanisms of the commit on TiKV are checked on a simulated cluster (`runtime/store/tikv/src/simulated.rs`).\n\n\
         | clause | claim | mechanism | check | random worlds |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut checks: Vec<&Check> = CHECKS.iter().collect();
    checks.sort_by_key(|check| (check.clause, check.mechanism));
    for Check { clause, mechanism, module, name } in checks {
        let seen = if worlds::MISSED.iter().any(|(missed, _)| missed == mechanism) { "yes" } else { "" };
        let (claim, mechanism) = (mechanism.claim(), mechanism.name());
        let check = format!("`{name}` in `verify/tests/mechanisms/{module}.rs`");
        let row = format!("| {clause} | {claim} | `{mechanism}` | {check} | {seen} |");
        writeln!(page, "{row}").unwrap();
    }
    page + SOAK
}

/// The end of the page.
const SOAK: &str = "
## The commit on TiKV

A simulated TiKV cluster has regions on several stores, locks, versions and rollback records as TiKV has them, and timestamps. Each request is
a message of its own: it arrives and has its effect whether or not its sender still waits. From a seed, requests and answers are lost, come late, even long after
their sender was told that nobody knows; regions split, merge and move; stores and the placement driver restart; processes die, stand still for longer than their locks live,
and are cut off, also one way. On it run

- the laws that every store must hold (`runtime/store/tikv/tests/simulated.rs`);
- the faults of the commit path by name, each in one test (`verify/tests/commit_faults.rs`);
- worlds of committers (`verify/src/commits.rs`): transfers, lists in one key and lists in a range, and pairs of which one may be there. Snapshots are looked at while they work. In the end
  what was acknowledged is there at its timestamp, what was rejected is not, what was undetermined is as it was found, each attempt is there as a whole or not at all, histories have no circle,
  the order keeps to the clock, and nothing stays locked. `tandem-verify commits --minutes 5` runs as many as there is time for, and prints for each failing seed the one command that does it all again.

It is not TiKV: it has no Raft below its regions, and knows only what the commit asks. What runs against real processes follows.

## Faults of real processes

`make faults MINUTES=10`, or `tandem-verify faults`, takes real processes: one, two or three `tandem-runtime` with the network between them, two workers, a real PD and three
[test stores](how-to/tikv.md) that speak TiKV's protocol. Each case of a table (`verify/src/faults/cases.rs`; `--list` prints it) says step by step what goes wrong:

- a runtime is killed (`kill -9`) at a named point of a commit: before its prewrites, when only secondaries are locked, before and after the primary is committed, before the secondaries are;
- requests, or answers of commits and prewrites, are lost, withheld, or arrive when their sender is long gone; stores refuse to commit in one phase, or say that they are busy or that the region is another one;
- a runtime is frozen in the middle of a commit, for longer than its locks and its membership live, and goes on as a zombie; two runtimes cannot reach each other, and both own everything;
- workers, stores and PD are killed and frozen; all stores restart while PD stands still; regions split;
- the network to stores, to PD and between runtimes is cut, held, held one way, flapping, slow and lossy; connections of clients are cut; the wall clock of a runtime jumps.

Meanwhile clients move money between accounts, in flows of two to eight; go on and off call in pairs, of which one has to stay; print books of fifty pages, or fail at the last one; send one request fifty times to all
runtimes, and then with another body; and add to lists. Each asks one runtime after the other with the same request id until it knows what came of it. All the time, also during the faults, snapshots are looked at in which
the money must add up, somebody must be on call, and all pages be of one edition. At the end, what clients were told is compared with the stored rows: each request has the one outcome that was told, what committed is there
exactly once with its message delivered, of the rest there is nothing, the histories have no circle, some requests are asked once more, and no lock is left once everything was read.
The case `housekeeping` sees to it that the elected runtime clears a lock that nobody asks for and lets history go as declared.

A run counts only if its faults happened (fail points have counters, processes a state, proxies count bytes), if 80 % of the operations that no fault touched succeeded, and if each runtime works again, and each client knows everything, within a minute.

```
$ tandem-verify faults --list
$ tandem-verify faults --case zombie --verbose
$ tandem-verify faults --minutes 30 -o json
```

It ends with 0 if all was kept, 1 if not (logs are kept, and it says where), 2 if it could not be tried. Without `--minutes`, each case runs once: about eight minutes. A short selection is part of the tests (`verify/tests/faults.rs`). There, runs
are also made with runtimes that lack a mechanism, and have to be bad: without `TikvGuards` updates are lost, without `TikvReads` nobody is on call, without `MessagesWritten` receipts are missing. By hand it was seen, too, that they are bad without
`MessageConsumed` and `RecordWritten`. They did *not* become bad without `RecordAbsence`, `UndeterminedDecided`, `TikvLostCommit` and `TikvAbsentPrimary`: there, a second mechanism stands behind the first one, or the moment that it takes is too short to be met by
chance. The checks in the table above meet it.

Three entries of that list need no process: a request that is repeated after its retention runs again, and `tandem_runtime_expired_rows_total` counts what was removed (`records_are_swept_after_their_retention`);
a flow whose snapshot is let go of runs again (`flows_whose_snapshot_is_let_go_of_run_again_on_another_one`); and nothing can be committed at timestamp 0 by an asynchronous commit, because there are none.

What is not tested there: anything that a real TiKV has and the test store has not, such as Raft, moves of leaders and merges of regions; a store that is wiped; full disks and errors of disks; backups; a long read-only flow while history is let go.

## Soak

`make soak MINUTES=10` looks for what nobody thought of, for as long as it is told to. It runs in turn, each time with new seeds:

- **worlds**: whole runtimes on a simulated store, in one thread and in virtual time, with faults of the store and crashes (`verify/src/world.rs`);
  the commit on a simulated TiKV cluster (`verify/src/commits.rs`); one to three runtimes on such a cluster (`verify/src/pods.rs`);
- **programs against processes** (`verify/src/process.rs`): `tandem dev` on the embedded store, with workers that are processes of their own,
  through the Rust SDK and through the HTTP profile. Clients send random programs over HTTP; they duplicate them, send other bodies under the same id, cancel them,
  set short deadlines, ask later, and repeat what was not answered until they know how it ended. Meanwhile the runtime is killed (`kill -9`) at random moments,
  just after something was written to its data directory, and while it starts; it is told to end; workers are killed, and frozen for a while;
- **histories against processes**: the same with list-append histories, which a checker searches for anomalies (`verify/src/history.rs`).

Programs are judged by a model (`verify/src/model.rs`) that runs all committed flows once more, in the order of their commits: each answer, each request record, message, egress record and
stored value must be what the model says. The whole store is compared with the model at the end, and after each kill as it lies on disk before the next runtime opens it. While a runtime runs, answers of
read-only flows are compared, each of which is one snapshot. A run is bad, too, if no fault happened, if fewer than 80 % of the operations that no fault touched succeeded, if it does not work again
within 30 seconds, or if the log of the runtime has an error in it.

At the end there is a table (`-o json` for programs, with `target/release/tandem-verify soak`), and for each failing seed the one command that runs it again. A world does the same again. With processes a seed decides what is
sent and what goes wrong, but not to the microsecond when; so the data and logs of a failed run are kept, and the report says where.

What it does not show: that a sync is needed before an answer, since a killed process does not take from the operating system what it has written (`what_was_answered_is_on_disk` above shows that);
more than one runtime on one store (worlds have that); histories through the HTTP profile.
";

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/how-we-know.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page(),
        "{} is stale: UPDATE_DOCS=1 cargo test -p tandem-verify --test mechanisms",
        path.display()
    );
}
