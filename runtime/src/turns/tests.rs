use super::*;

fn instance(key: &str) -> Instance {
    Instance::parse("f", key).unwrap()
}

async fn take(held: &Held, instance: &Instance) {
    if let Some(place) = held.line_up(instance) {
        held.wait(place).await;
    }
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_order() {
    let turns = Turns::default();
    let first = turns.held(Ticket(1));
    take(&first, &instance("a")).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiters: Vec<_> = (2..5)
        .map(|ticket| {
            let (held, order) = (turns.held(Ticket(ticket)), Arc::clone(&order));
            async move {
                take(&held, &instance("a")).await;
                order.lock().unwrap().push(ticket);
            }
        })
        .collect();
    let all = futures_util::future::join_all(waiters);
    tokio::join!(all, async { drop(first) });
    assert_eq!(*order.lock().unwrap(), [2, 3, 4]);
    assert!(turns.lock().lines.is_empty() && turns.lock().waits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_a_ring() {
    let turns = Turns::default();
    let (one, two) = (turns.held(Ticket(1)), turns.held(Ticket(2)));
    take(&one, &instance("a")).await;
    take(&two, &instance("b")).await;
    let started = Instant::now();
    let waits = async {
        one.try_take(&instance("b")).await;
        started.elapsed()
    };
    let rings = async {
        two.try_take(&instance("a")).await;
        let at_once = started.elapsed();
        drop(two);
        at_once
    };
    let (waited, at_once) = tokio::join!(waits, rings);
    assert_eq!((waited, at_once), (Duration::ZERO, Duration::ZERO));
    assert!(one.holds(&instance("b")));
}

#[tokio::test(start_paused = true)]
async fn a_slow_holder_is_overtaken_and_the_line_forgets_who_left() {
    let turns = Turns::default();
    let (slow, next) = (turns.held(Ticket(1)), turns.held(Ticket(2)));
    take(&slow, &instance("a")).await;
    let started = Instant::now();
    next.try_take(&instance("a")).await;
    assert_eq!(started.elapsed(), TURN_WAIT_MAX);
    drop(slow);
    assert!(turns.lock().lines.is_empty());
}

#[tokio::test(start_paused = true)]
async fn contention_is_forgotten() {
    let turns = Turns::default();
    turns.mark_contended(&instance("a"), Instant::now());
    assert!(turns.is_contended(&instance("a"), Instant::now()));
    tokio::time::advance(CONTENDED_FOR).await;
    assert!(!turns.is_contended(&instance("a"), Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_place_counts_from_when_it_was_taken() {
    let turns = Turns::default();
    let (first, second, third) = (turns.held(Ticket(1)), turns.held(Ticket(2)), turns.held(Ticket(3)));
    assert!(first.line_up(&instance("a")).is_none());
    let (second_place, third_place) = (second.line_up(&instance("a")), third.line_up(&instance("a")));
    drop(first);
    // The third asks first, and still comes third.
    let mut late = Box::pin(third.wait(third_place.unwrap()));
    assert!(futures_util::poll!(&mut late).is_pending());
    drop(second_place);
    late.await;
    assert!(third.holds(&instance("a")) && !second.holds(&instance("a")));
}

// To see it fail: let `Inner::grant_next` look at nobody's kind.
#[tokio::test(start_paused = true)]
async fn a_flow_of_another_runtime_has_its_turn_when_all_before_it_is_settled() {
    let turns = Turns::default();
    let [first, second, foreign] = [1, 2, 3].map(|ticket| turns.held(Ticket(ticket)));
    take(&first, &instance("a")).await;
    let behind = second.line_up(&instance("a")).unwrap();
    first.sealed(true);
    // The next one of this runtime has its turn at once.
    second.wait(behind).await;
    let a = instance("a");
    let mut taking = Box::pin(foreign.take_for_another(&a, TURN_HELD_MAX));
    assert!(futures_util::poll!(&mut taking).is_pending());
    second.sealed(true);
    assert!(futures_util::poll!(&mut taking).is_pending());
    drop(second);
    assert!(futures_util::poll!(&mut taking).is_pending());
    drop(first);
    assert_eq!(taking.await, Taking::Waited);
    drop(foreign);
    assert!(turns.lock().lines.is_empty() && turns.lock().waits.is_empty());
}

// To see it fail: let `Held::wait` wait without `take_back`.
#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_given_back_is_passed_on() {
    let turns = Turns::default();
    let (lost, entry) = (turns.held(Ticket(1)), turns.held(Ticket(2)));
    assert_eq!(lost.take_for_another(&instance("a"), TURN_HELD_MAX).await, Taking::AtOnce);
    let started = Instant::now();
    take(&entry, &instance("a")).await;
    assert_eq!(started.elapsed(), TURN_HELD_MAX);
    // Whoever is there with its entry stays.
    let next = turns.held(Ticket(3));
    assert_eq!(next.take_for_another(&instance("a"), 3 * TURN_HELD_MAX).await, Taking::Late);
    assert!(entry.holds(&instance("a")));
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_shared_once_it_has_cost_several_commits_in_a_short_time() {
    let (turns, a) = (Turns::default(), instance("a"));
    let fails = || turns.mark_between(&a, Instant::now());
    let is_shared = || turns.is_shared(&a, Instant::now());
    fails();
    assert!(!is_shared());
    tokio::time::advance(CONTENDED_FOR).await;
    fails();
    assert!(!is_shared());
    fails();
    assert!(is_shared());
    tokio::time::advance(CONTENDED_FOR).await;
    assert!(!is_shared());
}
