//! What belongs to the operator's account with an upstream, so that all who may ask for it share it.

use http::Method;

use super::grants::is_base;
use super::{Grant, Route};
use crate::dialect::Dialect;
use crate::path::Path;

/// What is shared, and the calls that reach it, below any base.
const SHARED: [(&str, &[(Method, &str)]); 9] = [
    (
        "the files of all users",
        &[
            (Method::GET, "/files"),
            (Method::GET, "/files/x/content"),
            (Method::DELETE, "/files/x"),
            (Method::POST, "/files"),
            (Method::POST, "/uploads"),
            (Method::GET, "/containers/x/files"),
        ],
    ),
    (
        "the batches of all users",
        &[
            (Method::GET, "/batches"),
            (Method::GET, "/batches/x"),
            (Method::POST, "/batches"),
            (Method::POST, "/batches/x/cancel"),
            (Method::GET, "/messages/batches"),
            (Method::POST, "/messages/batches"),
            (Method::GET, "/messages/batches/x/results"),
        ],
    ),
    (
        "fine-tuning, and the models made by it",
        &[
            (Method::GET, "/fine_tuning/jobs"),
            (Method::POST, "/fine_tuning/jobs"),
            (Method::POST, "/fine_tuning/jobs/x/cancel"),
            (Method::DELETE, "/models/x"),
        ],
    ),
    (
        "the stored answers and conversations of all users",
        &[
            (Method::GET, "/responses/x"),
            (Method::GET, "/responses/x/input_items"),
            (Method::DELETE, "/responses/x"),
            (Method::POST, "/responses/x/cancel"),
            (Method::GET, "/chat/completions"),
            (Method::GET, "/chat/completions/x"),
            (Method::DELETE, "/chat/completions/x"),
            (Method::GET, "/conversations/x"),
            (Method::DELETE, "/conversations/x"),
            (Method::GET, "/videos"),
            (Method::GET, "/videos/x/content"),
            (Method::DELETE, "/videos/x"),
        ],
    ),
    (
        "the assistants, threads and vector stores of all users",
        &[
            (Method::GET, "/assistants"),
            (Method::POST, "/assistants"),
            (Method::DELETE, "/assistants/x"),
            (Method::GET, "/threads/x/messages"),
            (Method::POST, "/threads"),
            (Method::POST, "/threads/x/runs"),
            (Method::GET, "/vector_stores"),
            (Method::POST, "/vector_stores"),
            (Method::DELETE, "/vector_stores/x"),
            (Method::GET, "/cachedContents"),
        ],
    ),
    (
        "tokens by which clients pass the gate by",
        &[
            (Method::POST, "/realtime/client_secrets"),
            (Method::POST, "/realtime/sessions"),
            (Method::POST, "/realtime/transcription_sessions"),
        ],
    ),
    (
        "the models that all users have",
        &[
            (Method::POST, "/api/pull"),
            (Method::POST, "/api/push"),
            (Method::POST, "/api/create"),
            (Method::POST, "/api/copy"),
            (Method::DELETE, "/api/delete"),
        ],
    ),
    (
        "the upstream's own administration",
        &[
            (Method::GET, "/model/info"),
            (Method::POST, "/model/new"),
            (Method::GET, "/get/config/callbacks"),
            (Method::POST, "/config/update"),
            (Method::GET, "/key/list"),
            (Method::POST, "/key/generate"),
            (Method::GET, "/user/list"),
            (Method::GET, "/spend/logs"),
            (Method::GET, "/organization/admin_api_keys"),
            (Method::POST, "/organization/admin_api_keys"),
            (Method::GET, "/metrics"),
            (Method::POST, "/props"),
        ],
    ),
    ("what other users have just asked", &[(Method::GET, "/slots"), (Method::POST, "/slots/x")]),
];

// === impl Route ===

impl Route {
    /// What `allow` opens of the account that the users share, in words. A plain app's own users are its own affair.
    #[must_use]
    pub fn opens_of_the_account(&self) -> Vec<&'static str> {
        if self.dialect == Some(Dialect::Plain) {
            return Vec::new();
        }
        let mut bases =
            vec![String::new(), "/v1".to_owned(), self.prefix.clone(), format!("{}/v1", self.prefix)];
        for grant in &self.allow {
            bases.extend(grant.ancestors().map(str::to_owned));
        }
        bases.retain(|base| is_base(base, false) && !base.contains("/models"));
        let is_open = |method: &Method, tail: &str| {
            bases.iter().any(|base| {
                let path = format!("{base}{tail}");
                let path = Path::new(&path);
                self.takes_path(&path) && self.allows(method, &path, false)
            })
        };
        let opened =
            SHARED.iter().filter(|(_, calls)| calls.iter().any(|(method, tail)| is_open(method, tail)));
        opened.map(|(what, _)| *what).collect()
    }
}

// === impl Grant ===

impl Grant {
    /// The paths above its own.
    fn ancestors(&self) -> impl Iterator<Item = &str> {
        let path = self.written();
        path.match_indices('/').filter_map(|(at, _)| path.get(..at))
    }
}
