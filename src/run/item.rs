//! The actor of one item: processes it in the pipeline and reports to its run.
//!
//! It exists only while its item is in flight, and holds one future.

use std::sync::Arc;

use actix::prelude::*;

use crate::chaos;
use crate::supervisor::{ChildId, Stop};

use super::item_process::{End, ItemProcess};
use super::job::Job;
use super::messages::{ItemDeferred, ItemFinished, ItemRecipients};

/// The actor of one item in flight.
pub(super) struct ItemActor {
    job: Arc<Job>,
    id: ChildId,
    run: Arc<ItemRecipients>,
}

impl ItemActor {
    pub(super) fn new(job: Arc<Job>, id: ChildId, run: Arc<ItemRecipients>) -> Self {
        Self { job, id, run }
    }
}

impl Actor for ItemActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        chaos::point("item.started");
        let process = ItemProcess::new(self.job.clone(), self.run.clone());
        let process = process.run().into_actor(self).map(|end, item, ctx| {
            let id = item.id;
            match end {
                End::Finished(result) => item.run.finished.do_send(ItemFinished { id, result }),
                End::Deferred(why) => item.run.deferred.do_send(ItemDeferred { id, why }),
            }
            chaos::point("item.finished");
            ctx.stop();
        });
        ctx.spawn(process);
    }
}

impl Handler<Stop> for ItemActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
