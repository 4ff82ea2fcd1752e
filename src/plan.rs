//! What a subject may do: scopes, models, addresses, rates and the daily allowance, as plain data.
//!
//! A [`Plan`] is resolved once, when configuration is read: `[plans.premium]` and
//! `[plans.premium.levels.advanced]` are two plans, chosen by the user's plan and level.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono_tz::Tz;
use ipnet::IpNet;

/// The terms one user has at one level.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The name under `[plans.*]`, as it stands in `subscription_plan`.
    pub name: String,
    /// Which route scopes are open.
    pub scopes: Permitted,
    /// Which models may be asked for.
    pub models: Permitted,
    /// How fast one user may ask, and how fast a key of its own plan.
    pub rates: Rates,
    /// How many conversations a day.
    pub allowance: Allowance,
}

/// Every plan of the configuration, with the one that unknown names fall back to.
#[derive(Clone, Debug)]
pub struct Plans {
    by_name: BTreeMap<String, Terms>,
    fallback: Arc<Plan>,
}

/// One `[plans.NAME]`: its own terms, and those of the levels that differ.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What holds for levels not named below.
    pub base: Arc<Plan>,
    /// What holds for users of a level.
    pub by_level: BTreeMap<String, Arc<Plan>>,
}

/// Conversations per day, and in whose day. The unit is one charged request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// 0 and more.
    pub per_day: i64,
    /// Where midnight is looked for.
    pub zone: Tz,
}

/// A token bucket: `burst` at once, then `per_minute` evenly spread. 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rates {
    /// Sustained requests in a minute; 0 where the plan sets none, so that the default of all users holds.
    pub per_minute: u32,
    /// Requests at once before the sustained rate binds; 0 means `per_minute`.
    pub burst: u32,
    /// Requests in flight at a time; 0 for no limit.
    pub parallel: u32,
}

/// A list that opens everything, or only what it names. A name may end or begin with `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Permitted {
    /// No list was given.
    #[default]
    All,
    /// Only these; an empty list opens nothing.
    Only(Vec<String>),
    /// What both open.
    Both(Box<Permitted>, Box<Permitted>),
}

/// From which addresses a key may be used. An empty list of networks, when enforced, admits nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AddressRules {
    /// No rule.
    #[default]
    Anywhere,
    /// Only from these networks.
    Only(Vec<IpNet>),
}

// === impl Plans ===

impl Plans {
    /// `fallback` serves users whose plan is not, or no longer, in the configuration.
    #[must_use]
    pub fn new(by_name: BTreeMap<String, Terms>, fallback: Arc<Plan>) -> Self {
        Self { by_name, fallback }
    }

    /// The terms of a user with this plan and level.
    #[must_use]
    pub fn resolve(&self, plan: &str, level: &str) -> Arc<Plan> {
        let Some(terms) = self.by_name.get(plan) else { return Arc::clone(&self.fallback) };
        Arc::clone(terms.by_level.get(level).unwrap_or(&terms.base))
    }

    /// Whether the configuration has a plan of this name.
    #[must_use]
    pub fn contains(&self, plan: &str) -> bool {
        self.by_name.contains_key(plan)
    }

    /// Every resolved plan, the fallback among them; limiters are built from it at start.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.by_name.values().flat_map(|t| t.by_level.values().chain([&t.base])).chain([&self.fallback])
    }
}

// === impl Plan ===

impl Plan {
    /// These terms with the scopes, models and rates of `other` laid upon them. It never opens anything;
    /// name and allowance stay.
    #[must_use]
    pub fn narrowed_by(&self, other: &Self) -> Self {
        Self {
            name: self.name.clone(),
            scopes: self.scopes.narrowed_by(&other.scopes),
            models: self.models.narrowed_by(&other.models),
            rates: self.rates.narrowed_by(&other.rates),
            allowance: self.allowance.clone(),
        }
    }

    /// These terms with every route closed.
    #[must_use]
    pub fn closed(&self) -> Self {
        Self { scopes: Permitted::Only(Vec::new()), ..self.clone() }
    }
}

// === impl Permitted ===

impl Permitted {
    /// Whether `name` is open: listed as it is, or matched by `prefix*` or `*suffix`.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => any_matches(patterns, name),
            Self::Both(one, other) => one.permits(name) && other.permits(name),
        }
    }

    /// Whether a model is open. One that a client names as `a,b` is two to some servers, and one with a control
    /// character ends there to others.
    #[must_use]
    pub fn permits_model(&self, name: &str) -> bool {
        let is_permitted = |name: &str| self.permits(name) && !name.chars().any(char::is_control);
        self.is_open() || is_permitted(name) && name.split(',').all(|one| is_permitted(one.trim()))
    }

    /// Whether everything is open, so that no name needs to be known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern == "*"),
            Self::Both(one, other) => one.is_open() && other.is_open(),
        }
    }

    /// What this opens and `other` opens too.
    #[must_use]
    pub fn narrowed_by(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, narrower) => narrower.clone(),
            (_, Self::All) => self.clone(),
            _ => Self::Both(Box::new(self.clone()), Box::new(other.clone())),
        }
    }
}

// === impl Rates ===

impl Rates {
    /// The tighter of each two limits. 0 is none, and never the tighter.
    #[must_use]
    pub fn narrowed_by(&self, other: &Self) -> Self {
        let tighter = |one: u32, two: u32| if one == 0 || two == 0 { one.max(two) } else { one.min(two) };
        // Without a sustained rate there is no bucket, so nothing bursts out of it.
        let burst = |rates: &Self| match rates {
            Self { per_minute: 0, .. } => 0,
            Self { burst: 0, per_minute, .. } => *per_minute,
            Self { burst, .. } => *burst,
        };
        Self {
            per_minute: tighter(self.per_minute, other.per_minute),
            burst: tighter(burst(self), burst(other)),
            parallel: tighter(self.parallel, other.parallel),
        }
    }
}

// === impl AddressRules ===

impl AddressRules {
    /// Whether a client at `ip` passes. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn permit(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self {
            Self::Anywhere => true,
            Self::Only(networks) => networks.iter().any(|network| network.contains(&ip)),
        }
    }
}

/// Whether `name` is one of `patterns`, which may end or begin with `*`.
#[must_use]
pub fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(prefix), _) => name.starts_with(prefix),
        (_, Some(suffix)) => name.ends_with(suffix),
        _ => pattern == name,
    })
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::{AddressRules, Allowance, Permitted, Plan, Rates};

    #[test]
    fn names_match_whole_by_prefix_or_by_suffix() {
        let list = Permitted::Only(vec!["gpt-4o".into(), "claude-*".into(), "*-mini".into()]);
        for open in ["gpt-4o", "claude-3", "claude-", "o3-mini"] {
            assert!(list.permits(open), "{open}");
        }
        for closed in ["gpt-4o-2024", "GPT-4o", "", "mini-"] {
            assert!(!list.permits(closed), "{closed}");
        }
        assert!(Permitted::All.permits("anything"));
        assert!(!Permitted::Only(vec![]).permits("anything"));
    }

    #[test]
    fn a_model_is_open_however_a_server_takes_its_name_apart() {
        let list = Permitted::Only(vec!["small-*".into(), "*-mini".into()]);
        assert!(list.permits_model("small-1") && list.permits_model("small-1, o3-mini"));
        for closed in
            ["small-1,dear", "small-1, dear", "dear\0-mini", "dear,x-mini", "small-1\n", "", "small-1,"]
        {
            assert!(!list.permits_model(closed), "{closed:?}");
        }
        assert!(Permitted::Only(vec!["a".into(), "*".into()]).is_open() && !list.is_open());
        assert!(!Permitted::Both(Box::new(Permitted::All), Box::new(list)).is_open());
    }

    #[test]
    fn a_plan_laid_upon_another_narrows_and_never_widens() {
        let only = |names: &[&str]| Permitted::Only(names.iter().map(|&name| name.to_owned()).collect());
        let plan = |models: Permitted, per_minute, burst, parallel| Plan {
            name: "own".into(),
            scopes: Permitted::All,
            models,
            rates: Rates { per_minute, burst, parallel },
            allowance: Allowance { per_day: 10, zone: Tz::UTC },
        };
        let own = plan(only(&["gpt-*", "o3"]), 60, 0, 0);
        let narrowed = own.narrowed_by(&plan(only(&["*-mini", "claude-3"]), 600, 20, 2));
        for (model, is_open) in
            [("gpt-4o-mini", true), ("gpt-4o", false), ("o3", false), ("o3-mini", false), ("claude-3", false)]
        {
            assert_eq!(narrowed.models.permits(model), is_open, "{model}");
        }
        assert_eq!(narrowed.rates, Rates { per_minute: 60, burst: 20, parallel: 2 });
        let free = plan(Permitted::All, 0, 0, 0);
        assert_eq!(own.narrowed_by(&free).models, own.models);
        assert_eq!(free.narrowed_by(&own).models, own.models);
        assert_eq!(free.narrowed_by(&own).rates, Rates { per_minute: 60, burst: 60, parallel: 0 });
        assert_eq!(free.narrowed_by(&free), free);
        assert!(!free.narrowed_by(&own.closed()).scopes.permits("any"));
    }

    #[test]
    fn addresses_are_compared_in_their_canonical_form() {
        let office =
            AddressRules::Only(vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/48".parse().unwrap()]);
        for inside in ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1"] {
            assert!(office.permit(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.114.1", "::1", "2001:db9::1", "::ffff:203.0.114.1"] {
            assert!(!office.permit(outside.parse().unwrap()), "{outside}");
        }
        assert!(!AddressRules::Only(vec![]).permit("127.0.0.1".parse().unwrap()));
    }
}
