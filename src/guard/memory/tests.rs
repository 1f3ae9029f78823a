use std::sync::Arc;

use futures_util::FutureExt;

use super::holder::Holder;
use super::*;
use crate::telemetry::{Samples, text_of};

#[tokio::test]
async fn intake_waits_for_free_memory_in_order() {
    let budget = Arc::new(MemoryBudget::new(100));
    let first = budget.take(70).await;
    let mut large = Box::pin(budget.take(60));
    let mut small = Box::pin(budget.take(10));
    assert!(large.as_mut().now_or_never().is_none());
    assert!(small.as_mut().now_or_never().is_none(), "it does not overtake the larger one");
    drop(first);
    let large = large.await;
    assert_eq!((budget.used(), small.now_or_never().is_some()), (60, true));
    drop(large);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_size_above_the_total_is_granted_when_nothing_else_is_held() {
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
async fn memory_added_by_an_item_in_progress_is_counted_without_waiting_and_slows_intake() {
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
async fn a_cancelled_wait_lets_the_next_one_continue() {
    let budget = Arc::new(MemoryBudget::new(100));
    let held = budget.take(100).await;
    let mut cancelled = Box::pin(budget.take(50));
    assert!(cancelled.as_mut().now_or_never().is_none());
    let mut next = Box::pin(budget.take(50));
    assert!(next.as_mut().now_or_never().is_none());
    drop(cancelled);
    drop(held);
    drop(next.await);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn the_held_bytes_are_reported() {
    let budget = Arc::new(MemoryBudget::new(100));
    let _held = budget.take(70).await;
    let mut samples = Samples::default();
    budget.report_metrics(&mut samples);
    let text = text_of(&samples).replace("{}", "");
    assert!(text.contains("\npointsman_memory_reserved_bytes 70"), "{text}");
}

/// Returns a response that holds all the memory, a second holder, and the response of that holder, which
/// waits.
async fn waiting_behind(budget: &Arc<MemoryBudget>) -> (ResponseMemory, HeldMemory, ResponseMemory) {
    let first = budget.take(0).await;
    let second = budget.take(0).await;
    let mut overflows = first.response(true);
    let total = budget.lock().total;
    overflows.hold(total + 1).await;
    let mut waits = second.response(true);
    assert!(waits.hold(1).now_or_never().is_none());
    (overflows, second, waits)
}

#[tokio::test]
async fn one_response_overflows_and_the_others_wait_in_the_order_of_their_items() {
    let budget = Arc::new(MemoryBudget::new(100));
    let holders = [budget.take(10).await, budget.take(10).await, budget.take(10).await];
    let mut responses = holders.each_ref().map(|held| held.response(true));
    responses[1].hold(1_000).await;
    responses[1].hold(2_000_000).await;
    let used = budget.used();
    let [oldest, overflows, youngest] = &mut responses;
    let mut young = Box::pin(youngest.hold(1));
    let mut old = Box::pin(oldest.hold(1));
    assert!(young.as_mut().now_or_never().is_none() && old.as_mut().now_or_never().is_none());
    assert!(overflows.hold(3_000_000).now_or_never().is_some(), "the overflowing response does not wait");
    assert!(budget.take(1).now_or_never().is_none(), "intake waits, too");
    assert!(budget.used() > used);
    drop((young, old));
    drop(responses);
    assert_eq!(budget.used(), 30);
}

#[tokio::test]
async fn the_oldest_item_whose_response_waits_overflows_next() {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let holders = [budget.take(0).await, budget.take(0).await, budget.take(0).await];
    let [mut oldest, mut overflows, mut youngest] = holders.each_ref().map(|held| held.response(true));
    overflows.hold(2 << 20).await;
    let mut young = Box::pin(youngest.hold(2 << 20));
    assert!(young.as_mut().now_or_never().is_none());
    let mut old = Box::pin(oldest.hold(2 << 20));
    assert!(old.as_mut().now_or_never().is_none());
    drop(overflows);
    assert!(young.as_mut().now_or_never().is_none());
    assert!(old.as_mut().now_or_never().is_some());
    drop(old);
    // The item keeps the bytes and the overflow until it ends or waits for something else.
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
async fn interactive_responses_are_served_first() {
    let budget = Arc::new(MemoryBudget::new(100));
    let (overflows, _second, _waits) = waiting_behind(&budget).await;
    let mut batch = response_of(&budget, true);
    let mut interactive = response_of(&budget, false);
    let mut batch = Box::pin(batch.hold(101));
    let mut interactive = Box::pin(interactive.hold(101));
    assert!(batch.as_mut().now_or_never().is_none() && interactive.as_mut().now_or_never().is_none());
    drop(overflows);
    assert!(batch.as_mut().now_or_never().is_none());
    assert!(interactive.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn a_response_cancelled_while_it_waits_returns_everything_and_lets_the_next_continue() {
    let budget = Arc::new(MemoryBudget::new(100_000));
    let (overflows, second, mut waits) = waiting_behind(&budget).await;
    let mut wait = Box::pin(waits.hold(1 << 20));
    assert!(wait.as_mut().now_or_never().is_none());
    let mut other = second.response(true);
    let mut next = Box::pin(other.hold(1));
    assert!(next.as_mut().now_or_never().is_none());
    // Granted, and cancelled before it is polled.
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
async fn a_failed_response_keeps_its_bytes_and_lets_another_overflow() {
    let budget = Arc::new(MemoryBudget::new(100));
    let held = budget.take(1).await;
    let mut fails = held.response(true);
    fails.hold(1_000).await;
    fails.fail(500);
    assert_eq!(budget.used(), 501);
    let mut next = response_of(&budget, true);
    assert!(next.hold(1_000).now_or_never().is_some());
    drop(next);
    drop(held);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn raising_the_total_serves_waiting_responses() {
    let budget = Arc::new(MemoryBudget::new(100));
    let (_overflows, _second, mut waits) = waiting_behind(&budget).await;
    let mut wait = Box::pin(waits.hold(1));
    assert!(wait.as_mut().now_or_never().is_none());
    budget.set_total(10 << 20);
    assert!(wait.as_mut().now_or_never().is_some());
}

fn response_of(budget: &Arc<MemoryBudget>, is_batch: bool) -> ResponseMemory {
    let number = budget.lock().next_number();
    HeldMemory(Some(Arc::new(Holder::new(budget.clone(), number, 0)))).response(is_batch)
}
