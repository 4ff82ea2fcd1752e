//! What an experiment found: figures, and promises that were broken.

use std::fmt::{Display, Write};

use serde_json::{Value, json};

/// The outcome of one experiment.
#[derive(Debug, Default)]
pub(crate) struct Report {
    title: String,
    figures: Vec<(String, String)>,
    broken: Vec<String>,
}

/// Of each kind of broken promise, so many are shown.
const SHOWN: usize = 40;

// === impl Report ===

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// One line of the table.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: impl Display) {
        self.figures.push((name.into(), value.to_string()));
    }

    /// A promise was broken, and how to see it.
    pub(crate) fn broken(&mut self, how: impl Into<String>) {
        self.broken.push(how.into());
    }

    pub(crate) fn all_broken(&mut self, how: impl IntoIterator<Item = String>) {
        self.broken.extend(how);
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }

    pub(crate) fn table(&self) -> String {
        let wide = self.figures.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = format!("{}\n", self.title);
        for (name, value) in &self.figures {
            let _ = writeln!(text, "  {name:wide$}  {value}");
        }
        for how in self.broken.iter().take(SHOWN) {
            let _ = writeln!(text, "  BROKEN: {how}");
        }
        if self.broken.len() > SHOWN {
            let _ = writeln!(text, "  … and {} more", self.broken.len() - SHOWN);
        }
        text + if self.is_kept() { "  every promise kept\n" } else { "" }
    }

    pub(crate) fn json(&self) -> Value {
        let figures: serde_json::Map<_, _> =
            self.figures.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({"title": self.title, "figures": figures, "broken": self.broken})
    }
}
