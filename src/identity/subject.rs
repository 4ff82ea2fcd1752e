//! The subject of a request: made only here, and only from a key's row.

use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::clock::Timestamp;
use crate::ids::{KeyId, UserId};
use crate::limits::Pace;
use crate::plan::{AddressRules, Allowance, Plan, Plans, Rates};
use crate::store::keys::Holder;

/// A user behind a key, with what they may do, resolved.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The key that was shown.
    pub key: KeyId,
    /// Whose it is.
    pub user: UserId,
    /// Their name.
    pub username: String,
    /// Their address.
    pub email: String,
    /// Their level, as plan rules name it.
    pub level: String,
    /// The `r_type`s they may ask for.
    pub access_rtype: Vec<String>,
    /// The plan of their subscription at their level, narrowed by the key's own.
    pub plan: Arc<Plan>,
    /// The rates of the user's own plan, before the key narrowed them.
    pub user_rates: Rates,
    /// The key's name, which outlives its rotation.
    pub key_name: String,
    /// Conversations a day: their own, or the plan's.
    pub allowance: Allowance,
    /// What the owner calls the key: its label, or its name.
    pub label: String,
    /// When the key, or the former secret that was shown, ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Who closes addresses, in the order they are asked.
    addresses: [(AddressRule, AddressRules); 3],
}

/// Whose rule an address is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRule {
    /// `[access]`: from where the installation is open.
    Installation,
    /// `allowed_ips` of the user.
    User,
    /// `allowed_ips` of the key.
    Key,
}

/// Known, but not allowed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotPermitted {
    /// The client's address is outside the rules.
    #[error("the address is not allowed")]
    Address,
    /// The plan does not open this route.
    #[error("the plan does not open this route")]
    Scope,
}

// === impl Subject ===

impl Subject {
    pub(super) fn of(holder: Holder, plans: &Plans, access: &AddressRules) -> Self {
        let own = plans.resolve(&holder.subscription_plan, &holder.level);
        let user_rates = own.rates;
        let plan = match &holder.key_plan {
            None => own,
            Some(name) if plans.contains(name) => {
                Arc::new(own.narrowed_by(&plans.resolve(name, &holder.level)))
            }
            // It was meant to narrow, and nobody knows by what any more.
            Some(_) => Arc::new(own.closed()),
        };
        let per_day = holder.quota_reset.unwrap_or(plan.allowance.per_day);
        let addresses = [
            (AddressRule::Installation, access.clone()),
            (AddressRule::User, address_rules(&holder.allowed_ips)),
            (AddressRule::Key, address_rules(&holder.key_allowed_ips)),
        ];
        let ends = [holder.expires_at, holder.former_until];
        Self {
            key: holder.key,
            user: holder.user,
            username: holder.username,
            email: holder.email,
            level: holder.level,
            access_rtype: holder.access_rtype,
            allowance: Allowance { per_day, zone: plan.allowance.zone },
            plan,
            user_rates,
            key_name: holder.key_name.clone(),
            label: if holder.key_label.is_empty() { holder.key_name } else { holder.key_label },
            expires_at: ends.into_iter().flatten().min(),
            addresses,
        }
    }

    /// Whether a route of `scope` is open to a client at `ip`.
    ///
    /// # Errors
    ///
    /// The first rule that closes it.
    pub fn permits(&self, scope: &str, ip: IpAddr) -> Result<(), NotPermitted> {
        self.permits_address(ip)?;
        if self.plan.scopes.permits(scope) { Ok(()) } else { Err(NotPermitted::Scope) }
    }

    /// Whether the key may be used from `ip` at all.
    ///
    /// # Errors
    ///
    /// [`NotPermitted::Address`].
    pub fn permits_address(&self, ip: IpAddr) -> Result<(), NotPermitted> {
        if self.closed_by(ip).is_none() { Ok(()) } else { Err(NotPermitted::Address) }
    }

    /// The first rule that closes `ip`, if one does.
    pub fn closed_by(&self, ip: IpAddr) -> Option<AddressRule> {
        self.addresses.iter().find(|(_, rules)| !rules.permit(ip)).map(|(whose, _)| *whose)
    }

    /// Whether the key, or the former secret that was shown, has come to its end by itself.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whose rates a request with this key is held to.
    #[must_use]
    pub fn pace(&self) -> Pace<'_> {
        Pace { user: self.user, key: &self.key_name, of_user: self.user_rates, of_key: self.plan.rates }
    }

    /// Whether an `r_type` may be asked for.
    pub fn may_ask_rtype(&self, r_type: &str) -> bool {
        self.access_rtype.iter().any(|open| open == r_type)
    }
}

/// A stored rule that does not parse closes: it was meant to keep somebody out.
fn address_rules(stored: &[String]) -> AddressRules {
    if stored.is_empty() {
        return AddressRules::Anywhere;
    }
    AddressRules::Only(stored.iter().filter_map(|rule| rule.parse().ok()).collect())
}
