//! The quota's promises.
