//! The caps of the day, as they are shown.

use crate::clock;
use crate::run::Cap;
use crate::types::Day;

use super::pointsman::Pointsman;

impl Pointsman {
    /// Returns the caps of the day, UTC: of all runs and requests, of providers, and of scopes, each with what counts against
    /// it.
    pub fn caps(&self) -> Vec<Cap> {
        let today = Day::at(clock::milliseconds());
        let current = self.current();
        let budgets = current.budgets.all();
        let caps = budgets.filter_map(|budget| {
            // Without a call since midnight no provider has begun the new day.
            budget.roll_over(today);
            Cap::of(budget)
        });
        caps.collect()
    }
}
