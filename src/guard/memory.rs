//! Memory budget: a limit on the bytes that records, prompts, responses and answers in progress may use
//! together, in the whole process.
//!
//! Intake waits for free memory, in order. A response waits while it is being read ([`ResponseMemory`]).
//! Everything else that belongs to an item in progress (its prompts, what a small answer becomes) is
//! counted without waiting: an item that held memory while it waited for more could block itself. Sizes are
//! estimates.
//!
//! Responses wait in the order of their items, the oldest first, and before intake. So that they cannot all
//! wait for each other, one of them may exceed the total: it *overflows*. Only one holder may do so at a
//! time. The overflow ends when the response is dropped, when its item has ended and returned its memory,
//! or when its item waits for something else ([`HeldMemory::park`]). While responses wait, the overflow
//! belongs to one that does not wait.

mod budget;
mod held;
mod holder;
#[cfg(test)]
mod properties;
mod response;
#[cfg(test)]
mod tests;

pub use budget::{DEFAULT_TOTAL, MemoryBudget};
pub use held::HeldMemory;
pub use response::ResponseMemory;
