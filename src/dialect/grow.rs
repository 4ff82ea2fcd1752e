//! Objects of an answer that grow piece by piece.

use std::collections::BTreeMap;

use super::assembly::most_text;
use super::copy::{append, copy, copy_text, copy_without, escape};
use super::raw::Raw;

/// An object: what came of it whole, as it was written, and the members that grow.
#[derive(Default)]
pub(super) struct Object {
    whole: Vec<u8>,
    members: BTreeMap<&'static str, Member>,
    objects: BTreeMap<&'static str, Self>,
}

enum Member {
    /// The text of a string, as it is written between its quotes.
    Text(Vec<u8>),
    /// A value, as it is written.
    Value(Vec<u8>),
    /// A list without its last bracket.
    List(Vec<u8>),
}

// === impl Object ===

impl Object {
    /// One that came whole; a value of another kind is kept as it is.
    pub(super) fn of(value: Raw<'_>) -> Self {
        Self { whole: value.bytes().to_vec(), ..Self::default() }
    }

    pub(super) fn with(name: &'static str, text: &[u8]) -> Self {
        let mut object = Self::default();
        object.append(name, text);
        object
    }

    /// Whether there is nothing of it.
    pub(super) fn is_nothing(&self) -> bool {
        self.whole.is_empty() && self.members.is_empty() && self.objects.is_empty()
    }

    /// Whether it is an object and not yet to become one.
    pub(super) fn is_object(&self) -> bool {
        if self.whole.is_empty() { !self.is_nothing() } else { self.whole.starts_with(b"{") }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name) || self.objects.contains_key(name) || self.came_with(name).is_some()
    }

    /// Appends to a text, given as it is written.
    pub(super) fn append(&mut self, name: &'static str, text: &[u8]) {
        append(self.text(name), text);
    }

    /// Appends a value to a text.
    pub(super) fn append_json(&mut self, name: &'static str, value: Raw<'_>) {
        escape(value.bytes(), most_text(value.bytes().len()), self.text(name));
    }

    fn text(&mut self, name: &'static str) -> &mut Vec<u8> {
        let begun = |object: &Self| {
            let begun = object.came_with(name).and_then(Raw::written).unwrap_or_default();
            Member::Text(begun.to_vec())
        };
        match self.member(name, begun) {
            Member::Text(known) | Member::Value(known) | Member::List(known) => known,
        }
    }

    /// Sets a text, unless there is one.
    pub(super) fn begin(&mut self, name: &'static str, text: Option<&[u8]>) {
        if let Some(text) = text
            && !self.has(name)
        {
            self.append(name, text);
        }
    }

    /// Sets a member.
    pub(super) fn set(&mut self, name: &'static str, value: Vec<u8>) {
        *self.member(name, |_| Member::Value(Vec::new())) = Member::Value(value);
    }

    /// Adds to a list.
    pub(super) fn push(&mut self, name: &'static str, value: Raw<'_>) {
        let begun = |object: &Self| {
            let begun = object.came_with(name).filter(|known| known.is_list());
            let begun = begun.and_then(|list| list.bytes().strip_suffix(b"]"));
            Member::List(begun.unwrap_or(b"[").trim_ascii().to_vec())
        };
        match self.member(name, begun) {
            Member::List(known) => {
                if known.len() > 1 {
                    append(known, b",");
                }
                append(known, value.bytes());
            }
            other => *other = Member::List([b"[", value.bytes()].concat()),
        }
    }

    /// An object in this one.
    pub(super) fn object(&mut self, name: &'static str) -> &mut Self {
        let begun = if self.objects.contains_key(name) { None } else { self.came_with(name).map(Self::of) };
        self.objects.entry(name).or_insert_with(|| begun.unwrap_or_default())
    }

    /// Appends it as it is written.
    pub(super) fn write(self, to: &mut Vec<u8>) {
        let Self { whole, members, objects } = self;
        let came = Raw::parse(&whole).ok();
        if let Some(other) = came.filter(|came| !came.is_object()) {
            return copy(other, to);
        }
        let names: Vec<&str> = members.keys().chain(objects.keys()).copied().collect();
        let start = to.len();
        match came {
            Some(object) => copy_without(object, &names, to),
            None => append(to, b"{}"),
        }
        drop(whole);
        to.pop();
        let name = |name: &str, to: &mut Vec<u8>| {
            let comma: &[u8] = if to.len() > start + 1 { b",\"" } else { b"\"" };
            append(to, comma);
            append(to, name.as_bytes());
            append(to, b"\":");
        };
        for (key, member) in members {
            name(key, to);
            member.write(to);
        }
        for (key, object) in objects {
            name(key, to);
            object.write(to);
        }
        append(to, b"}");
    }

    /// The member that came with the whole.
    fn came_with(&self, name: &str) -> Option<Raw<'_>> {
        Raw::parse(&self.whole).ok()?.get(name)
    }

    fn member(&mut self, name: &'static str, make: impl FnOnce(&Self) -> Member) -> &mut Member {
        let new = if self.members.contains_key(name) { None } else { Some(make(self)) };
        self.members.entry(name).or_insert_with(|| new.unwrap_or(Member::Value(Vec::new())))
    }
}

// === impl Member ===

impl Member {
    fn write(self, to: &mut Vec<u8>) {
        match self {
            Self::Text(written) => copy_text(&written, to),
            Self::Value(value) => copy(Raw::parse(&value).unwrap_or(Raw::NULL), to),
            Self::List(mut list) => {
                append(&mut list, b"]");
                copy(Raw::parse(&list).unwrap_or(Raw::NULL), to);
            }
        }
    }
}
