//! Defaults that are not those of the release before: notes of `check`, each with the line that restores
//! what was.

use crate::config::{Config, Finding};

/// What an unchanged file does differently now.
#[must_use]
pub fn changes(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |path: &str, message: String| found.push(Finding { path: path.to_owned(), message });
    let per_minute = config.limits.rate_limit_per_minute;
    if per_minute > 0 {
        note(
            "limits.rate_limit_per_minute",
            format!(
                "{per_minute} a minute now hold for each user whose plan sets no rate, and for an IP address only what \
                 comes without a good key; give the plan a rate_limit_per_minute for another rate of its users"
            ),
        );
    }
    if config.plans.all().any(|plan| plan.rates.per_minute > 0 || plan.rates.parallel > 0) {
        note(
            "plans",
            "rate_limit_per_minute, burst and max_parallel_per_key hold for all keys of a user together, no longer \
             for each key; multiply them by the keys a user has to restore what was"
                .to_owned(),
        );
    }
    let max = config.server.connections.max_per_address;
    if max != 256 {
        note(
            "server.connections.max_per_address",
            format!(
                "is {max}; its default was 256 and is the smaller of 1024 and a quarter of max: \
                 max_per_address = 256 restores it"
            ),
        );
    }
    found
}
