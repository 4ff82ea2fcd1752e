//! `POST /api/v1/admin/explain`: which rule would let a request pass, or not. Walks the checks of the data
//! plane in their order, on what is stored now, and charges nothing.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::Method;
use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::caller::AdminSession;
use super::forms::Body;
use super::openapi::refused;
use super::problem::Problem;
use crate::clock::Timestamp;
use crate::config::{Route, Target, Unrouted, route_for};
use crate::credential::key::PlainKey;
use crate::dialect::{Call, Dialect};
use crate::identity::{AddressRule, Examined, IdentifyError, Subject};
use crate::path::Path;

mod form;

use form::ExplainForm;

/// A request that nobody has sent.
pub(super) struct Question {
    who: Who,
    address: Option<IpAddr>,
    host: String,
    method: Method,
    path: Option<String>,
    model: Option<String>,
    r_type: Option<String>,
}

/// Whose request it would be.
enum Who {
    Key(Option<PlainKey>),
    User { username: String, key_name: String },
}

/// The verdict, and every check on the way to it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "allowed": false, "denied_by": "ip_not_allowed",
    "steps": [{"step": "address", "verdict": "deny", "code": "ip_not_allowed", "detail": "198.51.100.7 is outside the key's allowed_ips"}],
}))]
pub(super) struct Explanation {
    /// Whether no check denies.
    allowed: bool,
    /// The code that the refusal would carry; `null` where nothing denies.
    #[schema(required = true)]
    denied_by: Option<&'static str>,
    /// In the order of the data plane.
    steps: Vec<Step>,
}

/// One check.
#[derive(Serialize, ToSchema)]
struct Step {
    /// What is checked.
    #[serde(rename = "step")]
    name: &'static str,
    verdict: Verdict,
    /// The code of the refusal, where it denies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    code: Option<&'static str>,
    /// Why.
    detail: String,
}

/// What a check says; `skip` where the question does not say enough, or it does not apply.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
    /// The question does not say enough, or the check does not apply.
    Skip,
}

/// What the checks say so far.
#[derive(Default)]
struct Walk(Vec<Step>);

/// Tells which rule would let a request pass, or not.
///
/// Walks the checks of the data plane in their order, on what is stored now, and charges nothing. Goes
/// on after a denial, so that everything in the way is seen.
#[utoipa::path(
    post,
    path = "/api/v1/admin/explain",
    tag = "Admin: operation",
    request_body = ExplainForm,
    responses(
        (status = 200, description = "The verdict, and every check on the way to it.", body = Explanation),
        refused::NotFound,
    ),
)]
pub(super) async fn explain(
    State(control): State<Arc<Control>>,
    _: AdminSession,
    Body(question): Body<ExplainForm>,
) -> Result<Json<Explanation>, Problem> {
    let mut walk = Walk::default();
    let route = walk.route(&control, &question);
    let Some(examined) = control.examine(&question.who).await? else {
        walk.deny("key", "invalid_api_key", "nobody has this key, or it was revoked".to_owned());
        return Ok(Json(walk.verdict()));
    };
    let subject = &examined.subject;
    walk.account(&examined);
    walk.address(subject, question.address);
    walk.scope(subject, route);
    walk.call(route, &question);
    walk.rate(subject);
    walk.r_types(subject, route, question.r_type.as_deref());
    walk.model(subject, route, &question);
    walk.day(&control, subject, route, &question).await?;
    Ok(Json(walk.verdict()))
}

// === impl Control ===

impl Control {
    async fn examine(&self, who: &Who) -> Result<Option<Examined>, Problem> {
        let found = match who {
            Who::Key(None) => return Ok(None),
            Who::Key(Some(key)) => self.directory.examine(key).await,
            Who::User { username, key_name } => {
                let user = self.user_named(username).await?;
                self.directory.examine_named(user.id, key_name.clone()).await
            }
        };
        match found {
            Ok(examined) => Ok(Some(examined)),
            Err(IdentifyError::StoreDown) => Err(IdentifyError::StoreDown.into()),
            Err(_) => Ok(None),
        }
    }
}

// === impl Walk ===

impl Walk {
    fn allow(&mut self, name: &'static str, detail: String) {
        self.0.push(Step { name, verdict: Verdict::Allow, code: None, detail });
    }

    fn deny(&mut self, name: &'static str, code: &'static str, detail: String) {
        self.0.push(Step { name, verdict: Verdict::Deny, code: Some(code), detail });
    }

    fn skip(&mut self, name: &'static str, detail: &str) {
        self.0.push(Step { name, verdict: Verdict::Skip, code: None, detail: detail.to_owned() });
    }

    fn verdict(self) -> Explanation {
        let denied_by = self.0.iter().find_map(|step| step.code);
        Explanation { allowed: denied_by.is_none(), denied_by, steps: self.0 }
    }

    fn route<'c>(&mut self, control: &'c Control, question: &Question) -> Option<&'c Route> {
        let Some(path) = &question.path else {
            self.skip("route", "no path was given");
            return None;
        };
        let path = Path::new(path);
        let target = Target { method: &question.method, host: &question.host, path: &path, has_body: false };
        match route_for(control.routes.iter(), &target).map(|found| control.routes.get(found)) {
            Ok(Some(route)) => {
                let prefix = if route.prefix.is_empty() { "/" } else { &route.prefix };
                self.allow("route", format!("the route {prefix} takes it, scope \"{}\"", route.scope));
                return Some(route);
            }
            Err(Unrouted::Doubtful) => {
                let detail = "servers may disagree on what this path names".to_owned();
                self.deny("route", "doubtful_path", detail);
            }
            Err(Unrouted::Nothing) | Ok(None) => {
                self.deny("route", "unknown_path", "no route takes this host and path".to_owned());
            }
        }
        None
    }

    fn account(&mut self, examined: &Examined) {
        let subject = &examined.subject;
        self.allow("key", format!("key {} (\"{}\") of {}", subject.key, subject.label, subject.username));
        if examined.is_active {
            self.allow("active", "the account is active".to_owned());
        } else {
            self.deny("active", "account_disabled", "the account is disabled".to_owned());
        }
        match subject.expires_at {
            Some(end) if examined.has_expired => {
                self.deny("expiry", "invalid_api_key", format!("the key expired at {end}"));
            }
            Some(end) => self.allow("expiry", format!("the key works until {end}")),
            None => self.allow("expiry", "the key does not expire".to_owned()),
        }
    }

    fn address(&mut self, subject: &Subject, address: Option<IpAddr>) {
        let Some(ip) = address else { return self.skip("address", "no address was given") };
        match subject.closed_by(ip) {
            None => self.allow("address", format!("{ip} is within every rule")),
            Some(rule) => {
                let whose = match rule {
                    AddressRule::Installation => "the installation's whitelisted_ips",
                    AddressRule::User => "the user's allowed_ips",
                    AddressRule::Key => "the key's allowed_ips",
                };
                self.deny("address", "ip_not_allowed", format!("{ip} is outside {whose}"));
            }
        }
    }

    fn scope(&mut self, subject: &Subject, route: Option<&Route>) {
        let Some(route) = route else { return self.skip("scope", "no route, no scope") };
        let (scope, plan) = (&route.scope, &subject.plan.name);
        if subject.plan.scopes.permits(scope) {
            self.allow("scope", format!("the plan \"{plan}\" opens \"{scope}\" for this key"));
        } else {
            let detail =
                format!("the plan \"{plan}\", or the plan that narrows this key, leaves out \"{scope}\"");
            self.deny("scope", "route_not_allowed", detail);
        }
    }

    fn call(&mut self, route: Option<&Route>, question: &Question) {
        let Some((route, path)) = route.zip(question.path.as_deref()) else {
            return self.skip("call", "no route, no calls");
        };
        if route.allows(&question.method, &Path::new(path), false) {
            self.allow("call", "the route opens it".to_owned());
        } else {
            self.deny("call", "call_not_allowed", "the route's `allow` does not name it".to_owned());
        }
    }

    fn rate(&mut self, subject: &Subject) {
        let rates = &subject.plan.rates;
        let said = |number: u32| if number == 0 { "any number of".to_owned() } else { number.to_string() };
        let (sustained, parallel) = (said(rates.per_minute), said(rates.parallel));
        let detail = format!(
            "{sustained} requests a minute and {parallel} at a time; how many are under way now is not looked at"
        );
        self.allow("rate", detail);
    }

    fn r_types(&mut self, subject: &Subject, route: Option<&Route>, asked: Option<&str>) {
        let of_route = route.and_then(|route| route.r_type.as_deref());
        let asked: Vec<&str> = [of_route, asked].into_iter().flatten().collect();
        let Some(first) = asked.first() else { return self.skip("r_type", "no r_type is asked for") };
        match asked.iter().find(|r_type| !subject.may_ask_rtype(r_type)) {
            None => self.allow("r_type", format!("the account includes \"{first}\"")),
            Some(closed) => {
                self.deny("r_type", "r_type_not_allowed", format!("the account leaves out \"{closed}\""));
            }
        }
    }

    fn model(&mut self, subject: &Subject, route: Option<&Route>, question: &Question) {
        let models = &subject.plan.models;
        match &question.model {
            Some(model) if models.permits_model(model) => {
                self.allow("model", format!("\"{model}\" is included"));
            }
            Some(model) => {
                let detail = format!("the plan, or the plan that narrows this key, leaves out \"{model}\"");
                self.deny("model", "model_not_found", detail);
            }
            None if models.is_open() || !question.names_a_model(route) => {
                self.skip("model", "no model needs to be named");
            }
            None => {
                let detail = "a model must be named, since the plan includes only some".to_owned();
                self.deny("model", "model_missing", detail);
            }
        }
    }

    async fn day(
        &mut self,
        control: &Control,
        subject: &Subject,
        route: Option<&Route>,
        question: &Question,
    ) -> Result<(), Problem> {
        let left = control.quota.left(subject.user, &subject.allowance).await?;
        let (of, resets_at): (i64, Timestamp) = (left.allowance, left.resets_at);
        let detail = format!("{} of {of} conversations are left; the day ends at {resets_at}", left.left);
        match (question.is_charged(route), left.left) {
            (false, _) => self.skip("day", &format!("this call costs nothing; {detail}")),
            (true, 0) => self.deny("day", "insufficient_quota", detail),
            (true, _) => self.allow("day", detail),
        }
        Ok(())
    }
}

// === impl Question ===

impl Question {
    fn is_charged(&self, route: Option<&Route>) -> bool {
        let Some((route, path)) = route.zip(self.path.as_deref()) else { return true };
        route.charges(&self.method, &Path::new(path), false)
    }

    /// Whether the call is one whose body names a model.
    fn names_a_model(&self, route: Option<&Route>) -> bool {
        let Some((route, path)) = route.zip(self.path.as_deref()) else { return false };
        route.dialect != Some(Dialect::Plain) && Call::of(&self.method, path) != Call::Other
    }
}
