use futures_util::FutureExt;

use super::*;

#[tokio::test]
async fn intake_waits_for_room_in_order() {
    let budget = Arc::new(MemoryBudget::new(100));
    let first = budget.take(70).await;
    let mut large = Box::pin(budget.take(60));
    let mut small = Box::pin(budget.take(10));
    assert!(large.as_mut().now_or_never().is_none());
    assert!(small.as_mut().now_or_never().is_none(), "it does not overtake");
    drop(first);
    let large = large.await;
    assert_eq!((budget.used(), small.now_or_never().is_some()), (60, true));
    drop(large);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn what_is_larger_than_the_total_passes_when_it_is_alone() {
    let budget = Arc::new(MemoryBudget::new(100));
    let one = budget.take(1).await;
    let mut huge = Box::pin(budget.take(1_000));
    assert!(huge.as_mut().now_or_never().is_none());
    drop(one);
    let huge = huge.await;
    assert!(budget.take(1).now_or_never().is_none());
    drop(huge);
    assert!(budget.take(1).now_or_never().is_some());
}

#[tokio::test]
async fn what_an_item_in_progress_becomes_is_counted_without_waiting_and_slows_intake() {
    let budget = Arc::new(MemoryBudget::new(100));
    let item = budget.take(10).await;
    item.add(500);
    let clone = item.clone();
    drop(item);
    assert_eq!(budget.used(), 510);
    assert!(budget.take(1).now_or_never().is_none());
    drop(clone);
    assert_eq!(budget.used(), 0);
    assert!(budget.take(1).now_or_never().is_some());
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_turn_to_the_next() {
    let budget = Arc::new(MemoryBudget::new(100));
    let held = budget.take(100).await;
    let mut gone = Box::pin(budget.take(50));
    assert!(gone.as_mut().now_or_never().is_none());
    let mut next = Box::pin(budget.take(50));
    assert!(next.as_mut().now_or_never().is_none());
    drop(gone);
    drop(held);
    drop(next.await);
    assert_eq!(budget.used(), 0);
}

/// Returns a reply that waits for memory because another has all of it, and that other.
async fn waiting_behind(budget: &Arc<MemoryBudget>) -> (ReplyMemory, HeldMemory, ReplyMemory) {
    let (first, second) = (budget.take(0).await, budget.take(0).await);
    let mut overflows = first.reply(true);
    let total = budget.lock().total;
    overflows.hold(total + 1).await;
    let mut waits = second.reply(true);
    assert!(waits.hold(1).now_or_never().is_none());
    (overflows, second, waits)
}

#[tokio::test]
async fn one_reply_takes_more_than_there_is_and_the_others_wait_in_the_order_of_their_items() {
    let budget = Arc::new(MemoryBudget::new(100));
    let holders = [budget.take(10).await, budget.take(10).await, budget.take(10).await];
    let mut replies = holders.each_ref().map(|held| held.reply(true));
    replies[1].hold(1_000).await;
    replies[1].hold(2_000_000).await;
    let used = budget.used();
    let [oldest, overflows, youngest] = &mut replies;
    let mut young = Box::pin(youngest.hold(1));
    let mut old = Box::pin(oldest.hold(1));
    assert!(young.as_mut().now_or_never().is_none() && old.as_mut().now_or_never().is_none());
    assert!(overflows.hold(3_000_000).now_or_never().is_some(), "it waits for nobody");
    assert!(budget.take(1).now_or_never().is_none(), "intake waits, too");
    assert!(budget.used() > used);
    drop((young, old));
    drop(replies);
    assert_eq!(budget.used(), 30);
}

#[tokio::test]
async fn the_oldest_item_whose_reply_waits_overflows_next() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let holders = [budget.take(0).await, budget.take(0).await, budget.take(0).await];
    let [mut oldest, mut overflows, mut youngest] = holders.each_ref().map(|held| held.reply(true));
    overflows.hold(2 << 20).await;
    let mut young = Box::pin(youngest.hold(2 << 20));
    assert!(young.as_mut().now_or_never().is_none());
    let mut old = Box::pin(oldest.hold(2 << 20));
    assert!(old.as_mut().now_or_never().is_none());
    drop(overflows);
    assert!(young.as_mut().now_or_never().is_none());
    assert!(old.as_mut().now_or_never().is_some());
    drop(old);
    // What it keeps is its item's, and so is the place: until the item ends, or waits for something else.
    oldest.keep(2 << 20);
    assert!(young.as_mut().now_or_never().is_none());
    holders[0].park();
    assert!(young.as_mut().now_or_never().is_some());
    drop(young);
    drop(youngest);
    assert_eq!(budget.used(), 2 << 20);
    drop(holders);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn replies_that_people_wait_for_go_first() {
    let budget = Arc::new(MemoryBudget::new(100));
    let (overflows, _second, _waits) = waiting_behind(&budget).await;
    let mut batch = reply_of(&budget, true);
    let mut people = reply_of(&budget, false);
    let mut batch = Box::pin(batch.hold(101));
    let mut people = Box::pin(people.hold(101));
    assert!(batch.as_mut().now_or_never().is_none() && people.as_mut().now_or_never().is_none());
    drop(overflows);
    assert!(batch.as_mut().now_or_never().is_none());
    assert!(people.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn a_reply_that_is_cancelled_while_it_waits_gives_everything_back_and_lets_the_next_go() {
    let budget = Arc::new(MemoryBudget::new(100_000));
    let (overflows, second, mut waits) = waiting_behind(&budget).await;
    let mut wait = Box::pin(waits.hold(1 << 20));
    assert!(wait.as_mut().now_or_never().is_none());
    let mut other = second.reply(true);
    let mut next = Box::pin(other.hold(1));
    assert!(next.as_mut().now_or_never().is_none());
    // Granted, and cancelled before it knows.
    drop(overflows);
    drop(wait);
    drop(waits);
    assert!(next.as_mut().now_or_never().is_some());
    drop(next);
    drop(other);
    assert_eq!(budget.used(), 0);
    drop(second);
    assert!(budget.take(1).now_or_never().is_some());
}

#[tokio::test]
async fn a_reply_that_fails_keeps_what_it_said_and_lets_another_overflow() {
    let budget = Arc::new(MemoryBudget::new(100));
    let held = budget.take(1).await;
    let mut fails = held.reply(true);
    fails.hold(1_000).await;
    fails.fail(500);
    assert_eq!(budget.used(), 501);
    let mut next = reply_of(&budget, true);
    assert!(next.hold(1_000).now_or_never().is_some());
    drop(next);
    drop(held);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_total_that_is_raised_lets_those_go_that_wait() {
    let budget = Arc::new(MemoryBudget::new(100));
    let (_overflows, _second, mut waits) = waiting_behind(&budget).await;
    let mut wait = Box::pin(waits.hold(1));
    assert!(wait.as_mut().now_or_never().is_none());
    budget.set_total(10 << 20);
    assert!(wait.as_mut().now_or_never().is_some());
}

fn reply_of(budget: &Arc<MemoryBudget>, is_batch: bool) -> ReplyMemory {
    let number = budget.lock().number();
    HeldMemory(Some(Arc::new(Held::new(budget.clone(), number, 0)))).reply(is_batch)
}
