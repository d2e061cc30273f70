//! Settings from the text of a TOML file. Every problem names its line.

use super::super::cluster::{Member, Role, distinct};
use super::super::name::{Address, NodeId};
use super::super::setting::SECTIONS;
use super::super::suggest::hint;
use super::super::unit::{Raw, Setting};
use super::{Loader, Origin, meant};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

impl Loader {
    pub(super) fn file(&mut self, path: &str, text: &str) {
        let at = |offset: usize| Origin::File {
            path: path.to_owned(),
            line: text.as_bytes()[..offset.min(text.len())].split(|byte| *byte == b'\n').count(),
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problem(at(offset), error.message().replace('\n', ", "));
        }
        if !errors.is_empty() {
            return;
        }
        for (key, value) in document.get_ref() {
            self.table(key, value, &at);
        }
    }

    fn table(&mut self, key: &Spanned<std::borrow::Cow<str>>, value: &Spanned<DeValue>, at: &dyn Fn(usize) -> Origin) {
        let section = key.get_ref().as_ref();
        let origin = at(key.span().start);
        let table = match value.get_ref() {
            DeValue::Table(table) => table,
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let message = format!("\"{section}\" stands outside a section{}", meant("", section));
                return self.problem(origin, message);
            }
        };
        if section == "cluster" {
            return self.cluster(table, at);
        }
        let sections = SECTIONS.iter().map(|section| section.name);
        if !sections.clone().any(|known| known == section) {
            let near = hint(section, sections);
            return self.problem(origin, format!("unknown section \"[{section}]\"{near}"));
        }
        for (key, value) in table {
            self.set(section, key.get_ref(), &raw(value.get_ref()), at(key.span().start));
        }
    }

    fn cluster(&mut self, table: &DeTable, at: &dyn Fn(usize) -> Origin) {
        for (key, value) in table {
            let origin = at(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref().as_array()) {
                ("members", Some(members)) => {
                    self.members_origin = origin;
                    for member in members {
                        self.member(member, at);
                    }
                }
                ("members", None) => {
                    self.problem(origin, "cluster.members is written as [[cluster.members]] tables".to_owned());
                }
                ("name", _) => self.set("cluster", "name", &raw(value.get_ref()), origin),
                (name, _) => {
                    let message = format!("unknown setting \"cluster.{name}\"{}", hint(name, ["members", "name"]));
                    self.problem(origin, message);
                }
            }
        }
    }

    fn member(&mut self, value: &Spanned<DeValue>, at: &dyn Fn(usize) -> Origin) {
        let origin = at(value.span().start);
        let Some(table) = value.get_ref().as_table() else {
            return self.problem(origin, "cluster.members is written as [[cluster.members]] tables".to_owned());
        };
        let (mut id, mut address, mut role) = (None, None, Role::Voter);
        for (key, value) in table {
            let here = at(key.span().start);
            let name = key.get_ref().as_ref();
            let raw = raw(value.get_ref());
            let outcome = match name {
                "id" => NodeId::read(&raw).map(|value| id = Some(value)),
                "address" => Address::read(&raw).and_then(Address::reachable).map(|value| address = Some(value)),
                "role" => match String::read(&raw).map(|text| Role::parse(&text)) {
                    Ok(Some(value)) => {
                        role = value;
                        Ok(())
                    }
                    Ok(None) | Err(_) => Err(format!("{raw} is not one of {}", Role::NAMES.join(", "))),
                },
                _ => Err(format!("unknown setting{}", hint(name, ["id", "address", "role"]))),
            };
            if let Err(error) = outcome {
                self.problem(here, format!("cluster.members.{name}: {error}"));
            }
        }
        let (Some(id), Some(address)) = (id, address) else {
            return self.problem(origin, "a member needs id and address".to_owned());
        };
        let member = Member { id, address, role };
        match distinct(&self.config.cluster.members, &member) {
            Ok(()) => self.config.cluster.members.push(member),
            Err(error) => self.problem(origin, format!("cluster.members: {error}")),
        }
    }
}

fn raw(value: &DeValue) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other("number beyond 64 bits"),
        },
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Raw::Other(value.type_str())
        }
    }
}
