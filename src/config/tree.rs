//! The walk over the TOML tree: each key is asked for once, with its form; what nobody asked for is
//! unknown. A mistake is noted and the walk goes on, so that all of them are reported at once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Finding;
use super::env::{Overlay, Vars, expand};
use super::spelling::nearest;

/// What is shared by every section of one walk.
pub(super) struct Tree<'v> {
    vars: &'v Vars,
    overlay: Overlay,
    report: RefCell<Report>,
    asked: RefCell<BTreeMap<String, bool>>,
}

/// What was noted so far.
#[derive(Default)]
pub(super) struct Report {
    mistakes: Vec<Finding>,
    weaknesses: Vec<Finding>,
    warnings: Vec<Finding>,
    notes: Vec<Finding>,
}

/// What a report comes down to.
pub(super) struct Verdict {
    /// What must be mended.
    pub(super) mistakes: Vec<Finding>,
    /// What should be.
    pub(super) warnings: Vec<Finding>,
    /// What is good to know.
    pub(super) notes: Vec<Finding>,
}

/// One table of the file, with what variables say about its keys.
pub(super) struct Section<'t> {
    tree: &'t Tree<'t>,
    /// Where it is, as findings say it; empty for the root.
    path: String,
    /// The same with `[]` for each index and `*` for each chosen name.
    pattern: String,
    table: Table,
    known: Vec<&'static str>,
}

/// One scalar as it was written.
pub(super) enum Given {
    /// A string of the file, variables expanded.
    Text(String),
    /// An integer of the file.
    Number(i64),
    /// A boolean of the file.
    Switch(bool),
    /// Something of the file that no key takes.
    Other,
    /// A variable's value; numbers and booleans are read from it.
    Variable(String),
}

/// Whether a key was set, and where.
pub(super) enum Source {
    /// By a variable.
    Variable(String),
    /// In the file.
    File(Value),
}

/// Parses TOML, so far without meaning.
///
/// # Errors
/// Every syntax error, each with its line and column.
pub(super) fn parse(text: &str) -> Result<Table, Vec<Finding>> {
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let path = format!("line {}, column {column}", before.matches('\n').count() + 1);
        Finding { path, message: error.message().to_owned() }
    };
    if !errors.is_empty() {
        return Err(errors.iter().map(at).collect());
    }
    toml::from_str(text).map_err(|error| vec![at(&error)])
}

// === impl Tree ===

impl<'v> Tree<'v> {
    /// A walk with this environment.
    pub(super) fn new(vars: &'v Vars) -> Self {
        let (overlay, mistakes) = Overlay::new(vars);
        let report = Report { mistakes, ..Report::default() };
        Self { vars, overlay, report: RefCell::new(report), asked: RefCell::default() }
    }

    /// The whole file as a section.
    pub(super) fn root(&self, table: Table) -> Section<'_> {
        Section { tree: self, path: String::new(), pattern: String::new(), table, known: Vec::new() }
    }

    /// Something that keeps the gateway from starting.
    pub(super) fn mistake(&self, path: &str, message: impl Into<String>) {
        let finding = self.finding(path, message.into());
        self.report.borrow_mut().mistakes.push(finding);
    }

    /// Something that must be there and is not. Silent where a mistake says already why it is not.
    pub(super) fn missing(&self, path: &str, message: &str) {
        let finding = self.finding(path, message.to_owned());
        let element = format!("{}[", finding.path);
        let mut report = self.report.borrow_mut();
        if !report.mistakes.iter().any(|m| m.path == finding.path || m.path.starts_with(&element)) {
            report.mistakes.push(finding);
        }
    }

    /// Something that `development` forgives with a warning and `production` refuses.
    pub(super) fn weakness(&self, path: &str, message: impl Into<String>) {
        let finding = self.finding(path, message.into());
        self.report.borrow_mut().weaknesses.push(finding);
    }

    /// Something that is legal and probably not meant.
    pub(super) fn warning(&self, path: &str, message: impl Into<String>) {
        let finding = self.finding(path, message.into());
        self.report.borrow_mut().warnings.push(finding);
    }

    /// Something that is good to know.
    pub(super) fn note(&self, path: &str, message: impl Into<String>) {
        let finding = self.finding(path, message.into());
        self.report.borrow_mut().notes.push(finding);
    }

    /// Whether nothing so far keeps the gateway from starting.
    pub(super) fn is_sound(&self, strict: bool) -> bool {
        let report = self.report.borrow();
        report.mistakes.is_empty() && (!strict || report.weaknesses.is_empty())
    }

    /// Notes variables that set no key; to be called after the walk.
    pub(super) fn refuse_unknown_variables(&self) {
        let asked = self.asked.borrow();
        for (key, variable) in self.overlay.unknown() {
            let nearest = nearest(key, asked.keys().map(String::as_str));
            let way_out = nearest.map_or_else(
                || "see gateway.toml.example for the keys there are".to_owned(),
                |known| format!("did you mean GATEWAY__{}?", known.to_ascii_uppercase().replace('.', "__")),
            );
            self.mistake(variable, format!("sets no key of the configuration; {way_out}"));
        }
    }

    /// What was noted, weaknesses judged by how strict the environment is.
    pub(super) fn into_verdict(self, strict: bool) -> Verdict {
        let Report { mut mistakes, weaknesses, mut warnings, notes } = self.report.into_inner();
        if strict { &mut mistakes } else { &mut warnings }.extend(weaknesses);
        Verdict { mistakes, warnings, notes }
    }

    /// Every key asked for, as a pattern, and whether the file had it.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeMap<String, bool> {
        self.asked.borrow().clone()
    }

    fn finding(&self, path: &str, message: String) -> Finding {
        let path = self.overlay.variable_of(path).unwrap_or(path).to_owned();
        Finding { path, message }
    }
}

// === impl Section ===

impl<'t> Section<'t> {
    /// Where this section is, as findings say it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where a key of this section is.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes a mistake at a key of this section.
    pub(super) fn mistake(&self, key: &str, message: impl Into<String>) {
        self.tree.mistake(&self.path_of(key), message);
    }

    /// Whether the key is set, by the file or by a variable.
    pub(super) fn has(&self, key: &str) -> bool {
        let path = dotted(&self.path_of(key));
        self.table.contains_key(key)
            || self.tree.overlay.reaches_below(&path)
            || self.tree.overlay.take(&path).is_some()
    }

    /// The value of a key in its form; `None` when it is not set, or badly.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        form: impl Fn(&Given) -> Result<T, String>,
    ) -> Option<T> {
        let path = self.path_of(key);
        match self.take(key)? {
            Source::Variable(value) => self.tree.read(&path, &Given::Variable(value), &form),
            Source::File(value) => self.tree.read_from_file(&path, value, &form),
        }
    }

    /// The value of a key in its form, or what holds when it is not set.
    pub(super) fn value_or<T>(
        &mut self,
        key: &'static str,
        form: impl Fn(&Given) -> Result<T, String>,
        default: T,
    ) -> T {
        self.value(key, form).unwrap_or(default)
    }

    /// The value of a key that must be set.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        form: impl Fn(&Given) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.mistake(key, format!("is missing: add {key} = …"));
        }
        self.value(key, form)
    }

    /// The elements of a list, without those that were badly written. In a variable they stand
    /// between commas.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        form: impl Fn(&Given) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let path = self.path_of(key);
        let element = |index: usize| format!("{path}[{index}]");
        match self.take(key)? {
            Source::Variable(value) => {
                let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty()).enumerate();
                let read =
                    |(_, part): (usize, &str)| self.tree.read(&path, &Given::Variable(part.into()), &form);
                Some(parts.filter_map(read).collect())
            }
            Source::File(Value::Array(values)) => {
                let read = |(index, value)| self.tree.read_from_file(&element(index), value, &form);
                Some(values.into_iter().enumerate().filter_map(read).collect())
            }
            Source::File(_) => {
                self.tree.mistake(&path, "must be a list: put it between [ and ]");
                None
            }
        }
    }

    /// The table at a key; an empty one when it is not set.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'t> {
        let path = self.path_of(key);
        let pattern = join(&self.pattern, key);
        self.known.push(key);
        let table = match self.table.remove(key) {
            None => Table::new(),
            Some(value) => self.tree.table(&path, value),
        };
        Section { tree: self.tree, path, pattern, table, known: Vec::new() }
    }

    /// The table at a key, if it is set.
    pub(super) fn section_if_set(&mut self, key: &'static str) -> Option<Section<'t>> {
        let is_set = self.has(key);
        let section = self.section(key);
        is_set.then_some(section)
    }

    /// The tables of a list of tables (`[[key]]`). Variables may add to its end.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'t>> {
        let (path, pattern) = (self.path_of(key), join(&self.pattern, &format!("{key}[]")));
        self.known.push(key);
        let values = match self.table.remove(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(_) => {
                self.tree.mistake(&path, format!("must be a list of tables: write [[{path}]]"));
                Vec::new()
            }
        };
        let mut tables: Vec<Table> = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            tables.push(self.tree.table(&format!("{path}[{index}]"), value));
        }
        let named = self.tree.overlay.names_below(&dotted(&path));
        while named.contains(&tables.len().to_string()) {
            tables.push(Table::new());
        }
        let section = |(index, table)| Section {
            tree: self.tree,
            path: format!("{path}[{index}]"),
            pattern: pattern.clone(),
            table,
            known: Vec::new(),
        };
        tables.into_iter().enumerate().map(section).collect()
    }

    /// The tables below a key, by names the operator chose. Variables may add some, in lower case.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Section<'t>)> {
        let Section { tree, path, pattern, mut table, .. } = self.section(key);
        for name in tree.overlay.names_below(&dotted(&path)) {
            if !table.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
                table.insert(name, Value::Table(Table::new()));
            }
        }
        let section = |(name, value): (String, Value)| {
            let path = join(&path, &name);
            let table = tree.table(&path, value);
            (name, Section { tree, path, pattern: join(&pattern, "*"), table, known: Vec::new() })
        };
        table.into_iter().map(section).collect()
    }

    /// Notes whatever in this section nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let way_out = nearest(key, self.known.iter().copied()).map_or_else(
                || format!("known here are {}", self.known.join(", ")),
                |known| format!("did you mean \"{known}\"?"),
            );
            self.tree.mistake(&self.path_of(key), format!("unknown key; {way_out}"));
        }
    }

    /// Removes a key from those not asked for; a variable goes before the file.
    fn take(&mut self, key: &'static str) -> Option<Source> {
        self.known.push(key);
        let from_file = self.table.remove(key);
        let pattern = join(&self.pattern, key);
        *self.tree.asked.borrow_mut().entry(pattern).or_default() |= from_file.is_some();
        let variable = self.tree.overlay.take(&dotted(&self.path_of(key)));
        variable.map(|entry| Source::Variable(entry.value.clone())).or(from_file.map(Source::File))
    }

    /// Whether a key is set by a variable.
    pub(super) fn is_set_by_variable(&self, key: &str) -> bool {
        self.tree.overlay.take(&dotted(&self.path_of(key))).is_some()
    }
}

impl Tree<'_> {
    fn read<T>(&self, path: &str, given: &Given, form: impl Fn(&Given) -> Result<T, String>) -> Option<T> {
        form(given).map_err(|message| self.mistake(path, message)).ok()
    }

    fn read_from_file<T>(
        &self,
        path: &str,
        value: Value,
        form: impl Fn(&Given) -> Result<T, String>,
    ) -> Option<T> {
        let given = match value {
            Value::String(text) => {
                let expanded = expand(&text, self.vars);
                Given::Text(expanded.map_err(|message| self.mistake(path, message)).ok()?)
            }
            Value::Integer(number) => Given::Number(number),
            Value::Boolean(switch) => Given::Switch(switch),
            Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => Given::Other,
        };
        self.read(path, &given, form)
    }

    fn table(&self, path: &str, value: Value) -> Table {
        let Value::Table(table) = value else {
            self.mistake(path, "must be a table: put its keys below a header in [ ]");
            return Table::new();
        };
        table
    }
}

/// `routes[0].upstream` as variables say it: `routes.0.upstream`.
fn dotted(path: &str) -> String {
    path.replace('[', ".").replace(']', "")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn every_syntax_error_has_its_place() {
        let errors = parse("[server]\nlisten = \nworkers = 1\ndata_dir = 'x\n").unwrap_err();
        let places: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
        assert!(places.first().unwrap().starts_with("line 2"), "{errors:?}");
        assert!(places.last().unwrap().starts_with("line 4"), "{errors:?}");
    }
}
