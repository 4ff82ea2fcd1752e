//! What runs on this worker, watched for its right to go on: several times a second, and at the cost of one
//! atomic read where no user was changed and no key has come to its end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::entitled::Claim;
use super::refusal::Refusal;
use super::route::Route;
use crate::chatlog::{Access, Ending};
use crate::identity::{IdentifyError, NotPermitted, Revision, Shown, Subject};

/// The requests of one worker, from when they are let in to their end.
pub(super) struct Running {
    shared: Arc<Shared>,
    watched: RefCell<HashMap<u64, Rc<Watched>>>,
    next: Cell<u64>,
    /// Up to where changes were looked at.
    seen: Cell<Revision>,
    /// Whether the gateway waits for nothing any longer.
    is_cut: Cell<bool>,
    /// The worker has nothing more to serve.
    done: CancellationToken,
}

/// A request's place among those that run; it gives it up when dropped.
pub(super) struct Watch {
    running: Rc<Running>,
    number: u64,
    watched: Rc<Watched>,
}

/// One request, and why it must end.
pub(super) struct Watched {
    shown: Shown,
    /// Whom the key last led to.
    subject: RefCell<Arc<Subject>>,
    ip: IpAddr,
    route: Arc<Route>,
    /// What it asked for, held against what its user may ask for.
    claim: RefCell<Option<Claim>>,
    /// Whether it is to be looked at, whatever changed.
    is_due: Cell<bool>,
    cut: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
}

/// Why a request that runs is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The gateway stops, and can wait no longer.
    Shutdown,
    /// Its user, or its key, may not do this any more.
    Denied(Denied),
}

/// A right that was lost, and the refusal that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) access: Access,
    pub(super) refusal: Refusal,
}

/// How often changes are looked for.
const EVERY: Duration = Duration::from_millis(200);
/// Keys read at a time.
const AT_A_TIME: usize = 16;

// === impl Running ===

impl Running {
    /// Nothing yet; watched by a task of this thread until [`Running::finish`].
    pub(super) fn start(shared: &Arc<Shared>) -> Rc<Self> {
        let running = Rc::new(Self {
            shared: Arc::clone(shared),
            watched: RefCell::default(),
            next: Cell::new(0),
            seen: Cell::new(Revision::default()),
            is_cut: Cell::new(false),
            done: CancellationToken::new(),
        });
        tokio::task::spawn_local(Rc::clone(&running).keep_watch());
        running
    }

    /// Ends the task; what still runs is watched no longer.
    pub(super) fn finish(&self) {
        self.done.cancel();
    }

    /// Watches a request from here on, that was let in as this subject.
    pub(super) fn watch(
        self: &Rc<Self>,
        (subject, shown): (&Arc<Subject>, Shown),
        ip: IpAddr,
        route: &Arc<Route>,
    ) -> Watch {
        let is_late = shown.as_of() != self.seen.get();
        let watched = Rc::new(Watched {
            shown,
            subject: RefCell::new(Arc::clone(subject)),
            ip,
            route: Arc::clone(route),
            claim: RefCell::default(),
            // What changed since it was let in may have been looked at before it was here.
            is_due: Cell::new(is_late),
            cut: Cell::new(self.is_cut.get().then_some(Cut::Shutdown)),
            waker: RefCell::default(),
        });
        let number = self.next.replace(self.next.get().wrapping_add(1));
        self.watched.borrow_mut().insert(number, Rc::clone(&watched));
        Watch { running: Rc::clone(self), number, watched }
    }

    async fn keep_watch(self: Rc<Self>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let round = async {
                tick.tick().await;
                self.look().await;
            };
            tokio::select! {
                () = self.done.cancelled() => return,
                () = self.shared.cut.cancelled(), if !self.is_cut.get() => self.cut_all(),
                () = round => {}
            }
        }
    }

    fn cut_all(&self) {
        self.is_cut.set(true);
        self.watched.borrow().values().for_each(|watched| watched.cut(Cut::Shutdown));
    }

    /// Looks again at whatever may have lost its right to go on.
    async fn look(&self) {
        let mut seen = self.seen.get();
        let changed = self.shared.directory.changed_since(&mut seen);
        self.seen.set(seen);
        let now = self.shared.clock.now();
        let mut doubtful = Vec::new();
        for watched in self.watched.borrow().values().filter(|watched| watched.cut.get().is_none()) {
            let subject = watched.subject.borrow();
            if watched.is_due.get() || changed.concerns(&subject) {
                doubtful.push(Rc::clone(watched));
            } else if subject.has_expired(now) {
                self.deny(watched, Denied::of(Refusal::Identify(IdentifyError::Expired)));
            }
        }
        for some in doubtful.chunks(AT_A_TIME) {
            join_all(some.iter().map(|watched| self.review(watched))).await;
        }
    }

    async fn review(&self, watched: &Watched) {
        let directory = &self.shared.directory;
        let refusal = match directory.review(&watched.shown).await {
            // A database that does not answer says nothing against anybody: it is asked again.
            Err(IdentifyError::StoreDown) => return watched.is_due.set(true),
            Ok(subject) => watched.accept(subject).err(),
            Err(error) => Some(Refusal::Identify(error)),
        };
        watched.is_due.set(false);
        let Some(mut denied) = refusal.map(Denied::of) else { return };
        let user = watched.subject.borrow().user;
        if denied.access == Access::KeyRevoked && !directory.has_user(user).await {
            denied.access = Access::AccountDeleted;
        }
        self.deny(watched, denied);
    }

    fn deny(&self, watched: &Watched, denied: Denied) {
        let (reason, user) = (denied.access.reason(), watched.subject.borrow().user);
        self.shared.metrics.end_access(reason);
        tracing::info!(user = user.0, reason, "a running request was ended");
        watched.cut(Cut::Denied(denied));
    }
}

// === impl Watch ===

impl Watch {
    /// The request itself, for what waits with it.
    pub(super) fn watched(&self) -> &Rc<Watched> {
        &self.watched
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.running.watched.borrow_mut().remove(&self.number);
    }
}

// === impl Watched ===

impl Watched {
    /// Whom the key leads to now.
    pub(super) fn subject(&self) -> Arc<Subject> {
        Arc::clone(&self.subject.borrow())
    }

    /// From now on its user must be entitled to this.
    pub(super) fn claim(&self, claim: Claim) {
        self.claim.replace(Some(claim));
    }

    /// Why it must end, if it must.
    pub(super) fn cut_now(&self) -> Option<Cut> {
        self.cut.get()
    }

    /// The same, for who waits for something else too. Of several that wait the last is woken.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Cut> {
        if let Some(cut) = self.cut.get() {
            return Poll::Ready(cut);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Ends when the request must.
    pub(super) async fn cut_off(&self) -> Cut {
        poll_fn(|cx| self.poll_cut(cx)).await
    }

    /// `work`, unless the request loses its right before it is done.
    pub(super) async fn unless_denied<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Denied> {
        poll_fn(|cx| match self.poll_cut(cx) {
            Poll::Ready(Cut::Denied(denied)) => Poll::Ready(Err(denied)),
            _ => work.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    fn accept(&self, subject: Arc<Subject>) -> Result<(), Refusal> {
        subject.permits(&self.route.config.scope, self.ip)?;
        if let Some(claim) = &*self.claim.borrow() {
            claim.check(&subject)?;
        }
        self.subject.replace(subject);
        Ok(())
    }

    fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === impl Cut ===

impl Cut {
    /// What the row says.
    pub(super) fn ending(self) -> Ending {
        match self {
            Self::Shutdown => Ending::Cancelled,
            Self::Denied(denied) => Ending::AccessEnded(denied.access),
        }
    }
}

// === impl Denied ===

impl Denied {
    fn of(refusal: Refusal) -> Self {
        let access = match refusal {
            Refusal::Identify(IdentifyError::Disabled) => Access::AccountDisabled,
            Refusal::Identify(IdentifyError::Expired) => Access::KeyExpired,
            Refusal::Identify(_) => Access::KeyRevoked,
            Refusal::NotPermitted(NotPermitted::Address) => Access::Address,
            Refusal::NotPermitted(NotPermitted::Scope) => Access::Scope,
            Refusal::RType => Access::RType,
            _ => Access::Model,
        };
        Self { access, refusal }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        denied.refusal
    }
}
