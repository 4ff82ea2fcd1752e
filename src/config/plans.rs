//! `[plans.*]` and their levels: terms that are laid over those of the plan, and of the limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono_tz::Tz;

use super::file::MANY;
use super::forms;
use super::tree::Section;
use crate::plan::{Allowance, Permitted, Plan, Plans, Rates, Terms};

/// Terms of a plan or a level as far as they are given.
struct TermsGiven {
    conversation_limit: Option<i64>,
    per_minute: Option<u32>,
    burst: Option<u32>,
    parallel: Option<u32>,
    models: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    zone: Option<Tz>,
}

/// `free` and `premium` are there in any case: whoever came with the names of the REST API's first
/// edition finds them. `free` serves users whose plan is not in the configuration.
pub(super) fn read(sections: Vec<(String, Section<'_>)>, zone: Tz, parallel: u32) -> Plans {
    let mut by_name = BTreeMap::new();
    for (name, section) in sections {
        let default = free_plan(&name, zone, parallel);
        by_name.insert(name, plan(section, &default));
    }
    let builtin = |plan: Plan| Terms { base: Arc::new(plan), by_level: BTreeMap::new() };
    by_name.entry("premium".to_owned()).or_insert_with(|| builtin(premium_plan(zone, parallel)));
    let free = by_name.entry("free".to_owned()).or_insert_with(|| builtin(free_plan("free", zone, parallel)));
    let fallback = Arc::clone(&free.base);
    Plans::new(by_name, fallback)
}

fn plan(mut s: Section<'_>, default: &Plan) -> Terms {
    let is_free = default.name == "free";
    if !is_free && !s.has("conversation_limit") {
        s.mistake("conversation_limit", "is missing: say how many conversations a day this plan has");
    }
    let base = terms(&mut s).over(default);
    let level = |(name, mut section): (String, Section<'_>)| {
        let plan = terms(&mut section).over(&base);
        section.finish();
        (name, Arc::new(plan))
    };
    let by_level = s.named("levels").into_iter().map(level).collect();
    s.finish();
    Terms { base: Arc::new(base), by_level }
}

fn free_plan(name: &str, zone: Tz, parallel: u32) -> Plan {
    Plan {
        name: name.to_owned(),
        scopes: Permitted::All,
        models: Permitted::All,
        rates: Rates { per_minute: 0, burst: 0, parallel },
        allowance: Allowance { per_day: 10, zone },
    }
}

fn premium_plan(zone: Tz, parallel: u32) -> Plan {
    Plan {
        rates: Rates { per_minute: 600, burst: 0, parallel },
        allowance: Allowance { per_day: 1000, zone },
        ..free_plan("premium", zone, parallel)
    }
}

fn terms(s: &mut Section<'_>) -> TermsGiven {
    TermsGiven {
        conversation_limit: s.value("conversation_limit", forms::whole(0..=1_000_000_000_000)),
        per_minute: s.value("rate_limit_per_minute", forms::whole(0..=MANY)),
        burst: s.value("burst", forms::whole(0..=MANY)),
        parallel: s.value("max_parallel_per_key", forms::whole(0..=MANY)),
        models: s.list("models", forms::pattern),
        scopes: s.list("scopes", forms::pattern),
        zone: s.value("time_zone", forms::zone),
    }
}

// === impl TermsGiven ===

impl TermsGiven {
    /// These terms, and those of `base` where nothing is given.
    fn over(self, base: &Plan) -> Plan {
        let permitted =
            |given: Option<Vec<String>>, base: &Permitted| given.map_or(base.clone(), Permitted::Only);
        Plan {
            name: base.name.clone(),
            scopes: permitted(self.scopes, &base.scopes),
            models: permitted(self.models, &base.models),
            rates: Rates {
                per_minute: self.per_minute.unwrap_or(base.rates.per_minute),
                burst: self.burst.unwrap_or(base.rates.burst),
                parallel: self.parallel.unwrap_or(base.rates.parallel),
            },
            allowance: Allowance {
                per_day: self.conversation_limit.unwrap_or(base.allowance.per_day),
                zone: self.zone.unwrap_or(base.allowance.zone),
            },
        }
    }
}
