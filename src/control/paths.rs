//! Paths with their rights: a router that takes no handler without its row of the matrix.
//!
//! A path is named together with what its caller must be permitted to do, and the handler's typed
//! caller ([`super::caller`]) holds the two against each other. axum's own `get(handler)` does not fit
//! here, so a path without a row does not compile.

use std::sync::Arc;

use axum::extract::{Extension, FromRequestParts};
use axum::handler::Handler;
use axum::routing::{MethodRouter, Router};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Control;
use super::problem::Problem;
use super::rights::Action;
use super::slow_reads::SlowTurn;

/// Paths put together, and the list of them.
#[derive(Default)]
pub(super) struct Paths {
    router: Router<Arc<Control>>,
    listed: Vec<Listed>,
}

/// One method of one path, and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// As the router has it, such as `/api/v1/admin/users/{username}`.
    pub path: &'static str,
    /// What the caller must be permitted to do.
    pub action: Action,
    /// The function that answers: the operation's name in the OpenAPI document.
    pub handler: &'static str,
    /// Whether its reads may be slow, so that it waits in their queue ([`super::slow_reads`]).
    pub is_slow: bool,
}

/// A method, what it takes, the name of its handler, and whether that waits in the queue of slow reads.
type Answer = (&'static str, Action, &'static str, bool);

/// The methods of one path, each bound to an action.
pub(super) struct Guarded {
    methods: MethodRouter<Arc<Control>>,
    answers: Vec<Answer>,
}

/// What a path names, decoded. What is no text in UTF-8 names nothing.
pub(super) struct Path<T>(pub(super) T);

/// The methods a path may begin with.
macro_rules! methods {
    ($($name:ident $method:literal;)*) => {$(
        /// Answers this method for whoever may do `action`.
        pub(super) fn $name<H, T>(action: Action, handler: H) -> Guarded
        where
            H: Handler<T, Arc<Control>>,
            T: 'static,
        {
            let methods = axum::routing::$name(handler.layer(Extension(action)));
            Guarded { methods, answers: vec![($method, action, name_of::<H>(), is_slow::<T>())] }
        }
    )*};
}

/// The methods that others may be followed by.
macro_rules! further_methods {
    ($($name:ident $method:literal;)*) => {$(
        /// Answers this method too, for whoever may do `action`.
        pub(super) fn $name<H, T>(mut self, action: Action, handler: H) -> Self
        where
            H: Handler<T, Arc<Control>>,
            T: 'static,
        {
            self.methods = self.methods.$name(handler.layer(Extension(action)));
            self.answers.push(($method, action, name_of::<H>(), is_slow::<T>()));
            self
        }
    )*};
}

methods! {
    get "GET";
    post "POST";
    put "PUT";
    delete "DELETE";
}

/// The last word of a function's path.
fn name_of<H>() -> &'static str {
    let path = std::any::type_name::<H>();
    path.rsplit("::").next().unwrap_or(path)
}

/// Whether a handler that takes `T` takes a turn in the queue of slow reads.
fn is_slow<T>() -> bool {
    std::any::type_name::<T>().contains(std::any::type_name::<SlowTurn>())
}

// === impl Guarded ===

impl Guarded {
    further_methods! {
        post "POST";
        put "PUT";
        delete "DELETE";
    }
}

// === impl Path ===

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        named.map(|axum::extract::Path(named)| Self(named)).map_err(|_| Problem::NoSuchPath)
    }
}

// === impl Paths ===

impl Paths {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a path.
    pub(super) fn route(mut self, path: &'static str, guarded: Guarded) -> Self {
        let answers = guarded.answers.iter();
        let listed = answers.map(|&(method, action, handler, is_slow)| Listed {
            method,
            path,
            action,
            handler,
            is_slow,
        });
        self.listed.extend(listed);
        self.router = self.router.route(path, guarded.methods);
        self
    }

    /// Adds every path of `other`.
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.listed.extend(other.listed);
        self.router = self.router.merge(other.router);
        self
    }

    /// What there is.
    pub(super) fn into_list(self) -> Vec<Listed> {
        self.listed
    }

    /// The router.
    pub(super) fn into_router(self) -> Router<Arc<Control>> {
        self.router
    }
}
