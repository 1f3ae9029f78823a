//! Tests of complete pipelines: loading, and processing items.

mod diagnostics;
mod documentation;
mod item_state;
mod loading;
mod property;
mod starter;

use std::path::Path;
use std::sync::Arc;

use crate::diagnostics::Diagnostics;
use crate::types::RouteName;

use super::{Defaults, Pipeline};

fn parse(text: &str) -> Result<Pipeline, Diagnostics> {
    let routes = ["cheap", "strong"].map(RouteName::from);
    let defaults = Defaults { route: Some(routes[0].clone()), ..Defaults::default() };
    Pipeline::parse("pipeline.toml", text, Path::new("/pipelines"), &defaults, &routes)
}

fn pipeline(text: &str) -> Arc<Pipeline> {
    Arc::new(parse(text).unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false))))
}
