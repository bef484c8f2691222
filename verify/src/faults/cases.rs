//! The table of fault runs: what each is called, which entries of the list of faults it covers, and what goes wrong, step
//! by step. What is asked meanwhile, and what has to be true, is the same for all.

use std::time::Duration;

use tandem_e2e_tikv::proxy::Way;

use super::load::Pace;

/// A named run.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// Entries of the list of faults.
    pub covers: &'static [&'static str],
    /// What goes wrong, in words.
    pub what: &'static str,
    /// How many runtimes there are.
    pub runtimes: usize,
    /// They cannot reach each other: each owns everything.
    pub(super) strangers: bool,
    /// Their clocks can be made to jump.
    pub(super) clocks: bool,
    pub(super) pace: Pace,
    pub(super) steps: &'static [Step],
}

/// At how many of the requests that it meets a fail point fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    All,
    Percent(u8),
}

/// Somebody who can be killed or frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Runtime(usize),
    Worker(usize),
    Store(usize),
    Pd,
}

/// A way over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// From clients to a runtime.
    Clients(usize),
    /// From the other runtimes to this one.
    Peers(usize),
    /// From runtimes to a store, or to all of them.
    Store(usize),
    Stores,
    /// From everybody to PD.
    Pd,
}

/// What becomes of a way over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing arrives until it is mended, then all of it.
    Hold,
    HoldWay(Way),
    /// What goes this way is lost for good.
    Swallow(Way),
    /// Open connections end.
    Cut,
    /// The same, and new ones are closed at once.
    Refuse,
    /// Everything arrives later, by so much both ways; so many of a hundred packets have to be sent again.
    Slow(Duration, u64),
    Mend,
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Sets a fail point at all stores.
    Arm(&'static str, Rate),
    /// Waits until it has fired.
    Fired(&'static str),
    /// Takes it away. It must have fired.
    Disarm(&'static str),
    Kill(Target),
    Start(Target),
    Freeze(Target),
    Thaw(Target),
    /// PD is frozen, all stores are killed and started, and PD thaws while they wait for it.
    RestartStoresWithoutPd,
    Net(Link, Weather),
    /// Cuts regions in two, one after the other.
    Split(u32),
    /// The clock of a runtime is off by so many seconds.
    Clock(usize, i64),
    Wait(Duration),
    /// Each runtime has ended flows of its own.
    AllHaveRun,
    /// Somebody locks a secondary whose primary never comes, and is gone. Nobody ever asks for that key.
    Orphan,
    /// The elected runtime clears that lock.
    Swept,
    /// The elected runtime has let history go, but not what was declared, and older reads are refused.
    HistoryKept,
}

use Rate::{All, Percent};
use Step::{
    AllHaveRun, Arm, Clock, Disarm, Fired, Freeze, HistoryKept, Kill, Net, Orphan, RestartStoresWithoutPd, Split,
    Start, Swept, Thaw, Wait,
};
use Target::{Pd, Runtime, Store, Worker};
use Weather::{Cut, Hold, HoldWay, Mend, Refuse, Slow, Swallow};

const fn ms(milliseconds: u64) -> Step {
    Wait(Duration::from_millis(milliseconds))
}

const fn seconds(seconds: u64) -> Step {
    Wait(Duration::from_secs(seconds))
}

const HOUR: i64 = 3_600;

/// A runtime is killed while it is at this point of a commit.
macro_rules! killed_at {
    ($point:literal) => {
        &[Arm($point, All), Fired($point), Kill(Runtime(0)), Disarm($point), ms(500), Start(Runtime(0))]
    };
}

/// These happen to a part of all requests, for some seconds.
macro_rules! for_some_time {
    ($rate:expr, $($point:literal),*) => {
        &[$(Arm($point, $rate),)* seconds(4), $(Disarm($point),)*]
    };
}

/// Somebody is not there for a while.
macro_rules! gone_for {
    ($kill:ident, $start:ident, $target:expr, $seconds:literal) => {
        &[$kill($target), seconds($seconds), $start($target)]
    };
}

/// A way is like this for a while.
macro_rules! weather {
    ($link:expr, $weather:expr, $seconds:literal) => {
        &[Net($link, $weather), seconds($seconds), Net($link, Mend)]
    };
}

const PLAIN: Case = Case {
    name: "",
    covers: &[],
    what: "",
    runtimes: 2,
    strangers: false,
    clocks: false,
    pace: Pace::Usual,
    steps: &[],
};

/// All cases.
pub const CASES: &[Case] = &[
    Case {
        name: "nothing",
        covers: &["A11", "A13", "A15", "A16", "A19", "A21"],
        what: "nothing goes wrong: three runtimes, contended histories, write skew, storms of one request, flows of 50 calls",
        runtimes: 3,
        steps: &[seconds(4), AllHaveRun],
        ..PLAIN
    },
    Case {
        name: "kill-before-prewrite",
        covers: &["A1"],
        what: "the only runtime is killed before anything of a commit arrives",
        runtimes: 1,
        steps: killed_at!("lose-prewrite-request"),
        ..PLAIN
    },
    Case {
        name: "kill-before-primary-prewrite",
        covers: &["A2"],
        what: "killed with locks whose primary has no trace",
        steps: killed_at!("lose-primary-prewrite-request"),
        ..PLAIN
    },
    Case {
        name: "kill-after-prewrite",
        covers: &["A2"],
        what: "killed after all locks are there, before the primary is committed",
        steps: killed_at!("lose-primary-commit-request"),
        ..PLAIN
    },
    Case {
        name: "kill-after-primary",
        covers: &["A3"],
        what: "the only runtime is killed after the primary is committed, before it hears of that",
        runtimes: 1,
        steps: killed_at!("withhold-primary-commit-reply"),
        ..PLAIN
    },
    Case {
        name: "kill-before-secondaries",
        covers: &["A4", "A20"],
        what: "killed when the primary is committed and the secondaries are locked",
        steps: killed_at!("lose-secondary-commit-request"),
        ..PLAIN
    },
    Case {
        name: "lost-commit-replies",
        covers: &["A5"],
        what: "a third of all commits are done, and their answers lost",
        steps: for_some_time!(Percent(30), "lose-commit-reply"),
        ..PLAIN
    },
    Case {
        name: "withheld-commit-replies",
        covers: &["A5"],
        what: "a tenth of all commits are done, and nothing is answered",
        steps: for_some_time!(Percent(10), "withhold-commit-reply"),
        ..PLAIN
    },
    Case {
        name: "lost-prewrite-replies",
        covers: &["A6"],
        what: "a third of all prewrites, one-phase commits among them, are done, and their answers lost",
        steps: for_some_time!(Percent(30), "lose-prewrite-reply"),
        ..PLAIN
    },
    Case {
        name: "late-requests",
        covers: &["A5", "A6"],
        what: "commits and prewrites arrive seconds after their sender gave them up",
        steps: &[
            Arm("pause-before-commit", Percent(5)),
            Arm("pause-before-prewrite", Percent(5)),
            seconds(6),
            Disarm("pause-before-commit"),
            Disarm("pause-before-prewrite"),
        ],
        ..PLAIN
    },
    Case {
        name: "one-phase-refused",
        covers: &["A8"],
        what: "no store commits in one phase any more",
        steps: for_some_time!(All, "refuse-one-pc"),
        ..PLAIN
    },
    Case {
        name: "zombie",
        covers: &["A9"],
        what: "a runtime is frozen between its prewrites and its commit, for longer than its locks and its membership live, and goes on",
        steps: &[
            Arm("pause-after-secondary-prewrite", All),
            Fired("pause-after-secondary-prewrite"),
            Freeze(Runtime(0)),
            Disarm("pause-after-secondary-prewrite"),
            seconds(9),
            Thaw(Runtime(0)),
        ],
        ..PLAIN
    },
    Case {
        name: "late-primary",
        covers: &["A2", "A9"],
        what: "a runtime is frozen when only secondaries are locked, others clear these, then its primary arrives and it goes on",
        steps: &[
            Arm("pause-before-primary-prewrite", All),
            Fired("pause-before-primary-prewrite"),
            ms(300),
            Freeze(Runtime(0)),
            seconds(6),
            Disarm("pause-before-primary-prewrite"),
            ms(300),
            Thaw(Runtime(0)),
        ],
        ..PLAIN
    },
    Case {
        name: "zombie-long",
        covers: &["A9"],
        what: "the same for 35 seconds, with three runtimes",
        runtimes: 3,
        steps: &[
            Arm("pause-after-secondary-prewrite", All),
            Fired("pause-after-secondary-prewrite"),
            Freeze(Runtime(0)),
            Disarm("pause-after-secondary-prewrite"),
            seconds(35),
            Thaw(Runtime(0)),
        ],
        ..PLAIN
    },
    Case {
        name: "two-owners",
        covers: &["A10", "A11", "A15", "A21"],
        what: "two runtimes cannot reach each other, and each believes that it owns everything; one is killed",
        strangers: true,
        steps: &[seconds(4), AllHaveRun, Kill(Runtime(0)), ms(500), Start(Runtime(0))],
        ..PLAIN
    },
    Case {
        name: "hot-keys",
        covers: &["A12"],
        what: "64 clients on the same eight accounts, in any order, and two runtimes that both own them",
        strangers: true,
        pace: Pace::Hot,
        steps: &[seconds(6), AllHaveRun],
        ..PLAIN
    },
    Case {
        name: "workers",
        covers: &["A14"],
        what: "a worker is killed in the middle of flows, then frozen",
        steps: &[
            Kill(Worker(0)),
            seconds(1),
            Start(Worker(0)),
            seconds(1),
            Freeze(Worker(1)),
            seconds(5),
            Thaw(Worker(1)),
        ],
        ..PLAIN
    },
    Case {
        name: "clients-cut",
        covers: &["A3", "A15"],
        what: "connections of clients are cut in the middle of their requests, again and again",
        steps: &[
            Net(Link::Clients(0), Cut),
            ms(400),
            Net(Link::Clients(1), Cut),
            ms(400),
            Net(Link::Clients(0), Cut),
            ms(400),
            Net(Link::Clients(1), Refuse),
            seconds(2),
            Net(Link::Clients(1), Mend),
        ],
        ..PLAIN
    },
    Case {
        name: "pd-killed",
        covers: &["B1"],
        what: "PD is killed and started again",
        steps: gone_for!(Kill, Start, Pd, 3),
        ..PLAIN
    },
    Case {
        name: "pd-frozen",
        covers: &["B1"],
        what: "PD is frozen for 20 seconds",
        steps: gone_for!(Freeze, Thaw, Pd, 20),
        ..PLAIN
    },
    Case {
        name: "store-killed",
        covers: &["B2"],
        what: "one of three stores is killed and started again",
        steps: gone_for!(Kill, Start, Store(1), 4),
        ..PLAIN
    },
    Case {
        name: "store-frozen",
        covers: &["B2"],
        what: "one of three stores is frozen for eight seconds",
        steps: gone_for!(Freeze, Thaw, Store(1), 8),
        ..PLAIN
    },
    Case {
        name: "stores-without-pd",
        covers: &["B3"],
        what: "all stores are restarted while PD is frozen",
        steps: &[RestartStoresWithoutPd],
        ..PLAIN
    },
    Case {
        name: "splits",
        covers: &["B4"],
        what: "a region is cut in two, twice a second",
        steps: &[Split(10)],
        ..PLAIN
    },
    Case {
        name: "partition-store",
        covers: &["B5"],
        what: "nothing arrives between the runtimes and one store",
        steps: weather!(Link::Store(0), Hold, 6),
        ..PLAIN
    },
    Case {
        name: "partition-store-one-way",
        covers: &["B5"],
        what: "requests arrive at the stores, and their answers do not; then the other way round, for good",
        steps: &[
            Net(Link::Stores, HoldWay(Way::ToClient)),
            seconds(4),
            Net(Link::Stores, Mend),
            seconds(1),
            Net(Link::Stores, Swallow(Way::ToServer)),
            seconds(4),
            Net(Link::Stores, Mend),
        ],
        ..PLAIN
    },
    Case {
        name: "partition-pd",
        covers: &["B5"],
        what: "nothing arrives at PD",
        steps: weather!(Link::Pd, Hold, 6),
        ..PLAIN
    },
    Case {
        name: "partition-peers",
        covers: &["B5", "A10"],
        what: "nothing arrives at a runtime from the others, which are still members of one store",
        runtimes: 3,
        steps: weather!(Link::Peers(0), Hold, 6),
        ..PLAIN
    },
    Case {
        name: "flapping",
        covers: &["B5"],
        what: "the network to a store and between runtimes comes and goes every second",
        steps: &[
            Net(Link::Store(2), Hold),
            seconds(1),
            Net(Link::Store(2), Mend),
            Net(Link::Peers(1), Refuse),
            seconds(1),
            Net(Link::Peers(1), Mend),
            Net(Link::Store(2), Refuse),
            seconds(1),
            Net(Link::Store(2), Mend),
            Net(Link::Peers(0), Hold),
            seconds(1),
            Net(Link::Peers(0), Mend),
            Net(Link::Store(0), Cut),
            seconds(1),
        ],
        ..PLAIN
    },
    Case {
        name: "slow-network",
        covers: &["B6"],
        what: "200 ms there and back to all stores, and 5 % of the packets lost",
        steps: weather!(Link::Stores, Slow(Duration::from_millis(100), 5), 8),
        ..PLAIN
    },
    Case {
        name: "clock-jumps",
        covers: &["B9"],
        what: "the wall clock of a runtime jumps by an hour, forward and back, and strobes",
        clocks: true,
        steps: &[
            Clock(0, HOUR),
            seconds(2),
            Clock(0, -HOUR),
            seconds(2),
            Clock(0, 0),
            ms(300),
            Clock(0, HOUR),
            ms(300),
            Clock(0, 0),
            ms(300),
            Clock(1, -HOUR),
            seconds(2),
            Clock(1, 0),
        ],
        ..PLAIN
    },
    Case {
        name: "housekeeping",
        covers: &["A2", "A22"],
        what: "a lock of a dead owner that nobody asks for is cleared, history is let go as declared (two to three minutes)",
        steps: &[Orphan, HistoryKept, Swept],
        ..PLAIN
    },
    Case {
        name: "region-errors",
        covers: &["B10"],
        what: "a part of all requests is answered that the store is busy, or that the region has moved or changed",
        steps: for_some_time!(
            Percent(4),
            "server-is-busy",
            "epoch-not-match",
            "not-leader",
            "region-not-found",
            "stale-command",
            "max-timestamp-not-synced"
        ),
        ..PLAIN
    },
];

impl Case {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        CASES.iter().copied().find(|case| case.name == name)
    }

    /// Whether it does something to stores or PD, so that nobody else can use the cluster meanwhile.
    pub fn disturbs(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Kill(target) | Start(target) | Freeze(target) | Thaw(target) => matches!(target, Store(_) | Pd),
            Net(link, _) => matches!(link, Link::Store(_) | Link::Stores | Link::Pd),
            RestartStoresWithoutPd | Split(_) => true,
            Arm(..) | Fired(_) | Disarm(_) | Clock(..) | Wait(_) | AllHaveRun | Orphan | Swept | HistoryKept => false,
        })
    }
}
