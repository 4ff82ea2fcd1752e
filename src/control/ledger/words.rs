//! Why a conversation was charged, given back or free, in words.

use crate::store::exchanges::Verdict;

/// A sentence's worth, from the row's verdict and reason.
pub(super) fn why(verdict: Verdict, reason: &str) -> String {
    let happened = happened(reason);
    match verdict {
        Verdict::Charged if goes_back(reason) => format!("{happened}; the day had had its refunds"),
        Verdict::Charged => happened.to_owned(),
        Verdict::Refunded => format!("{happened}, so it was given back"),
        Verdict::Free => format!("{happened}; such a call costs nothing"),
    }
}

/// A reason without words of its own stands for itself.
fn happened(reason: &str) -> &str {
    match reason {
        "complete" => "answered to the end",
        "length" => "answered up to the length it was allowed",
        "client_disconnect" => "the client left",
        "upstream_server_error" => "the upstream failed",
        "upstream_rate_limit" => "the upstream was asked too fast",
        "upstream_timeout_status" => "the upstream gave up waiting",
        "upstream_redirect" => "the upstream sent the client elsewhere",
        "upstream_client_error" => "the upstream refused it",
        "upstream_unreachable" => "the upstream could not be reached",
        "upstream_eof" => "the upstream stopped in the middle",
        "connect_timeout" => "no connection to the upstream in time",
        "first_byte_timeout" => "no answer in time",
        "idle_timeout" => "the answer stood still for too long",
        "total_timeout" => "the answer took too long",
        "refused" => "refused while it came in",
        "cancelled_by_operator" => "the gateway was stopped",
        "gateway_stopped" => "the gateway was killed, and nobody saw the end",
        "key_revoked" => "the key was revoked while it ran",
        "key_expired" => "the key came to its end while it ran",
        "account_disabled" => "the account was disabled while it ran",
        "account_deleted" => "the account was deleted while it ran",
        "ip_not_allowed" => "the IP address was closed out while it ran",
        "route_not_allowed" => "the plan lost the route while it ran",
        "model_not_found" => "the plan lost the model while it ran",
        "r_type_not_allowed" => "the account lost the r_type while it ran",
        "verify-key" => "an app had the key verified",
        "authz" => "a proxy asked for it",
        "log-message" => "an app logged it",
        other => other,
    }
}

/// Whether what happened is given back as long as the day has refunds.
fn goes_back(reason: &str) -> bool {
    matches!(
        reason,
        "upstream_server_error"
            | "upstream_rate_limit"
            | "upstream_timeout_status"
            | "upstream_unreachable"
            | "connect_timeout"
            | "first_byte_timeout"
    )
}

#[cfg(test)]
mod tests {
    use super::{Verdict, happened, why};
    use crate::chatlog::{Access, Ending, Waited};

    #[test]
    fn every_ending_has_words() {
        let waits = [Waited::Connect, Waited::FirstByte, Waited::Idle, Waited::Total].map(Ending::TimedOut);
        let errors = [307, 400, 408, 429, 500].map(Ending::UpstreamError);
        let others = [
            Ending::Complete,
            Ending::Length,
            Ending::ClientLeft,
            Ending::Unreachable,
            Ending::UpstreamCut,
            Ending::Refused,
            Ending::Cancelled,
        ];
        let lost = [
            Access::KeyRevoked,
            Access::KeyExpired,
            Access::AccountDisabled,
            Access::AccountDeleted,
            Access::Address,
            Access::Scope,
            Access::Model,
            Access::RType,
        ];
        let lost = lost.map(Ending::AccessEnded);
        for ending in waits.into_iter().chain(errors).chain(others).chain(lost) {
            assert!(happened(ending.reason()).contains(' '), "{ending:?}");
        }
    }

    #[test]
    fn the_verdict_is_in_the_words() {
        let failed = |verdict| why(verdict, "upstream_server_error");
        assert_eq!(failed(Verdict::Charged), "the upstream failed; the day had had its refunds");
        assert_eq!(failed(Verdict::Refunded), "the upstream failed, so it was given back");
        assert_eq!(why(Verdict::Charged, "complete"), "answered to the end");
        assert_eq!(why(Verdict::Free, "log-message"), "an app logged it; such a call costs nothing");
        assert_eq!(why(Verdict::Charged, "news_to_us"), "news_to_us");
    }
}
