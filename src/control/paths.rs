//! Paths with their rights: a router that takes no handler without its row of the matrix.
//!
//! A path is named together with what its caller must be permitted to do, and the handler's typed
//! caller ([`super::caller`]) holds the two against each other. axum's own `get(handler)` does not fit
//! here, so a path without a row does not compile.

use std::sync::Arc;

use axum::extract::Extension;
use axum::handler::Handler;
use axum::routing::{MethodRouter, Router};

use super::Control;
use super::rights::Action;

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
}

/// The methods of one path, each bound to an action.
pub(super) struct Guarded {
    methods: MethodRouter<Arc<Control>>,
    actions: Vec<(&'static str, Action)>,
}

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
            Guarded { methods, actions: vec![($method, action)] }
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
            self.actions.push(($method, action));
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

// === impl Guarded ===

impl Guarded {
    further_methods! {
        post "POST";
        put "PUT";
        delete "DELETE";
    }
}

// === impl Paths ===

impl Paths {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a path.
    pub(super) fn route(mut self, path: &'static str, guarded: Guarded) -> Self {
        let listed = guarded.actions.iter().map(|&(method, action)| Listed { method, path, action });
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
