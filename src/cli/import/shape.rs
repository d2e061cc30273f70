//! The shape of an import: which field goes into which column, and of what type.
//!
//! ```text
//! header | --columns | table ──> names ─┐
//! table  | --types | the file itself ──> types ─┴─> Shape ──> CREATE TABLE, INSERT INTO t (...) VALUES
//! ```
//!
//! * The first row decides whether file and names fit; a later row of another width is a bad row.

use super::super::Stop;
use super::super::remote::data_type;
use super::super::session::quote_name;
use super::infer::Guess;
use super::input::Input;
use super::source::Source;
use chronos::config::did_you_mean;
use chronos::sql::value::DataType;

/// A column to fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in the table.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

/// What the user said about the file.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Field separator.
    pub delimiter: u8,
    /// The file has no header line.
    pub no_header: bool,
    /// `--columns`
    pub columns: Option<Vec<String>>,
    /// `--types`, by position or by name.
    pub types: Option<Vec<String>>,
    /// Rows to look at before types are settled; 0 is all.
    pub infer_rows: u64,
    /// `--null`: text that means NULL besides the empty field and the word NULL.
    pub null: Option<String>,
    /// `--timestamp-format`
    pub timestamp_format: Option<String>,
}

impl Given {
    /// True where a field means NULL: empty or the word NULL, neither in quotes, or what `--null` says.
    pub fn is_null(&self, field: &str, quoted: impl FnOnce() -> bool) -> bool {
        match &self.null {
            Some(null) if field == null => true,
            _ => (field.is_empty() || field == "NULL") && !quoted(),
        }
    }
}

/// Names a table after a file, and columns after a header: in lower case, since that is how an unquoted name is read,
/// and without what would need quotes in every query.
pub fn tidy_name(text: &str) -> String {
    let mut name: String = text
        .trim()
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_numeric()) {
        name.insert(0, '_');
    }
    name
}

/// A name that the user typed: in quotes as it is, else in lower case.
pub fn typed_name(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.to_lowercase(),
    }
}

/// The names of the file's fields, and how many lines of the file to skip.
fn field_names(input: &Input, given: &Given, table: Option<&[Target]>) -> Result<(Vec<String>, bool), Stop> {
    let mut source = Source::new(input.bytes()?, given.delimiter);
    let empty = || Stop::Message(format!("{} has no rows", input.name()));
    let mut what = "header".to_owned();
    let mut names: Option<Vec<String>> = given.columns.as_ref().map(|columns| {
        "--columns".clone_into(&mut what);
        columns.iter().map(|name| typed_name(name)).collect()
    });
    if !given.no_header {
        let header = source.next().map_err(before_all)?.ok_or_else(empty)?;
        header.check_utf8().map_err(|line| Stop::Message(format!("line {line}: not valid UTF-8")))?;
        let written = || (0..header.fields.len()).map(|i| tidy_name(header.text(i))).collect();
        names = names.or_else(|| Some(written()));
    }
    let first = source.next().map_err(before_all)?;
    let names = match (names, table, &first) {
        (Some(names), _, _) => names,
        (None, Some(table), _) => {
            "table".clone_into(&mut what);
            table.iter().map(|column| column.name.clone()).collect()
        }
        (None, None, Some(first)) => (1..=first.fields.len()).map(|i| format!("c{i}")).collect(),
        (None, None, None) => return Err(empty()),
    };
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(Stop::Message(format!(
            "{what} names {:?} twice: name the columns with --columns a,b,...",
            twice.1
        )));
    }
    if let Some(first) = first
        && first.fields.len() != names.len()
    {
        return Err(Stop::Message(format!(
            "{what} names {} columns, line {} has {}",
            names.len(),
            first.line,
            first.fields.len()
        )));
    }
    Ok((names, !given.no_header))
}

/// A file that cannot be read to its end, before any of it was sent.
fn before_all(stop: Stop) -> Stop {
    match stop {
        Stop::Message(text) => Stop::Message(format!("stopped after 0 rows\n{text}")),
        stop @ (Stop::Failed(_) | Stop::Usage(_) | Stop::Quit | Stop::Exit(_)) => stop,
    }
}

/// How the file's fields fill a table.
#[derive(Clone, Debug)]
pub struct Shape {
    /// One column for each field.
    pub columns: Vec<Target>,
    /// The first line of the file is not a row.
    pub skip_header: bool,
}

impl Shape {
    /// The shape of an import into an existing table, or into a new one where `table` is none.
    pub fn find(input: &Input, given: &Given, name: &str, table: Option<&[Target]>) -> Result<Shape, Stop> {
        let (names, skip_header) = field_names(input, given, table)?;
        let columns = match table {
            Some(table) => existing(names, name, table)?,
            None => inferred(input, given, names, skip_header)?,
        };
        Ok(Shape { columns, skip_header })
    }

    /// `CREATE TABLE`, for a table that is not there.
    pub fn create(&self, table: &str, primary_key: &[String]) -> Result<String, Stop> {
        if let Some(missing) = primary_key.iter().find(|key| !self.columns.iter().any(|column| column.name == **key)) {
            let near = did_you_mean(missing, self.columns.iter().map(|column| column.name.as_str()));
            return Err(Stop::Usage(format!("--primary-key: no column {missing:?}{near}")));
        }
        let mut parts: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}", quote_name(&column.name), column.data_type)).collect();
        if !primary_key.is_empty() {
            let keys: Vec<String> = primary_key.iter().map(|key| quote_name(key)).collect();
            parts.push(format!("PRIMARY KEY ({})", keys.join(", ")));
        }
        Ok(format!("CREATE TABLE {} ({})", quote_name(table), parts.join(", ")))
    }

    /// `INSERT INTO t (...) VALUES `
    pub fn insert(&self, table: &str) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| quote_name(&column.name)).collect();
        format!("INSERT INTO {} ({}) VALUES ", quote_name(table), names.join(","))
    }
}

fn existing(names: Vec<String>, table_name: &str, table: &[Target]) -> Result<Vec<Target>, Stop> {
    names
        .into_iter()
        .map(|name| {
            let found = table.iter().find(|column| column.name == name);
            let found = found.or_else(|| table.iter().find(|column| tidy_name(&column.name) == name));
            found.cloned().ok_or_else(|| {
                let near = did_you_mean(&name, table.iter().map(|column| column.name.as_str()));
                Stop::Message(format!("table {table_name:?} has no column {name:?}{near}"))
            })
        })
        .collect()
}

/// Types from `--types`, and from the file where they are silent.
fn inferred(input: &Input, given: &Given, names: Vec<String>, skip_header: bool) -> Result<Vec<Target>, Stop> {
    let declared = declared(given.types.as_deref().unwrap_or(&[]), &names)?;
    let mut guesses = vec![Guess::default(); names.len()];
    if declared.contains(&None) {
        let mut source = Source::new(input.bytes()?, given.delimiter);
        if skip_header {
            source.next()?;
        }
        let mut rows = 0;
        while let Some(record) = source.next().map_err(before_all)? {
            // Rows that will be rejected say nothing about the types.
            if record.fields.len() != names.len() || record.check_utf8().is_err() {
                continue;
            }
            for (i, guess) in guesses.iter_mut().enumerate().filter(|(i, _)| declared[*i].is_none()) {
                let field = record.text(i);
                if !given.is_null(field, || false) {
                    *guess = guess.with(field, given.timestamp_format.as_deref());
                }
            }
            rows += 1;
            if rows == given.infer_rows {
                break;
            }
        }
    }
    let types = declared.iter().zip(&guesses).map(|(declared, guess)| declared.unwrap_or_else(|| guess.data_type()));
    Ok(names.into_iter().zip(types).map(|(name, data_type)| Target { name, data_type }).collect())
}

fn declared(types: &[String], names: &[String]) -> Result<Vec<Option<DataType>>, Stop> {
    let read = |text: &str| {
        let upper = text.trim().to_ascii_uppercase();
        let canonical = match upper.as_str() {
            "BIGINT" | "SMALLINT" | "INTEGER" => "INT",
            "DOUBLE" | "REAL" | "DOUBLE PRECISION" => "FLOAT",
            "STRING" | "VARCHAR" | "CHAR" => "TEXT",
            "BOOLEAN" => "BOOL",
            "BYTEA" => "BLOB",
            other => other,
        };
        data_type(canonical).ok_or_else(|| {
            Stop::Usage(format!("--types: {text:?} is not one of INT, FLOAT, TEXT, TIMESTAMP, BOOL, BLOB"))
        })
    };
    let mut declared = vec![None; names.len()];
    if types.iter().any(|part| part.contains('=')) {
        for part in types {
            let (name, text) = part
                .split_once('=')
                .ok_or_else(|| Stop::Usage(format!("--types: {part:?} is not NAME=TYPE, as the others are")))?;
            let name = typed_name(name);
            let at = names.iter().position(|known| *known == name).ok_or_else(|| {
                let near = did_you_mean(&name, names.iter().map(String::as_str));
                Stop::Usage(format!("--types: no column {name:?}{near}"))
            })?;
            declared[at] = Some(read(text)?);
        }
    } else if !types.is_empty() {
        if types.len() != names.len() {
            return Err(Stop::Usage(format!("--types names {} types for {} columns", types.len(), names.len())));
        }
        for (slot, text) in declared.iter_mut().zip(types) {
            *slot = Some(read(text)?);
        }
    }
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, given: &Given) -> Result<Shape, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.csv");
        std::fs::write(&path, text).expect("writes");
        Shape::find(&Input::File(path), given, "t", None).map_err(|stop| match stop {
            Stop::Message(text) | Stop::Usage(text) => text,
            Stop::Failed(_) | Stop::Quit | Stop::Exit(_) => panic!("unexpected"),
        })
    }

    fn given() -> Given {
        Given { delimiter: b',', ..Given::default() }
    }

    const OCCUPANCY: &str = "\"date\",\"Temperature\"\n\"1\",\"2015-02-04 17:51:00\",23.18\n";

    #[test]
    fn a_header_that_does_not_fit_is_named_with_its_counts() {
        assert_eq!(shape(OCCUPANCY, &given()).err().as_deref(), Some("header names 2 columns, line 2 has 3"));
    }

    #[test]
    fn columns_replace_the_header() {
        let columns = Some(["id", "date", "Temp"].map(str::to_owned).to_vec());
        let shape = shape(OCCUPANCY, &Given { columns, ..given() }).expect("fits");
        assert!(shape.skip_header);
        assert_eq!(
            shape.create("t", &["id".to_owned()]).expect("has the key"),
            "CREATE TABLE \"t\" (\"id\" INT, \"date\" TIMESTAMP, \"temp\" FLOAT, PRIMARY KEY (\"id\"))"
        );
        assert_eq!(shape.insert("t"), "INSERT INTO \"t\" (\"id\",\"date\",\"temp\") VALUES ");
    }

    #[test]
    fn without_a_header_columns_are_numbered() {
        let shape = shape("1,a\n2,b\n", &Given { no_header: true, ..given() }).expect("fits");
        assert_eq!(shape.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["c1", "c2"]);
        assert!(!shape.skip_header);
    }

    #[test]
    fn types_may_be_declared_by_name_or_position() {
        let types = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let by_name = shape("a,b\n1,2\n", &Given { types: types(&["b=TEXT"]), ..given() }).expect("fits");
        assert_eq!(by_name.columns[1].data_type, DataType::Text);
        assert_eq!(by_name.columns[0].data_type, DataType::Int);
        let by_position = shape("a,b\n1,2\n", &Given { types: types(&["double", "bigint"]), ..given() }).expect("fits");
        assert_eq!(by_position.columns[0].data_type, DataType::Float);
        assert!(shape("a,b\n1,2\n", &Given { types: types(&["INT"]), ..given() }).is_err());
        assert!(shape("a,b\n1,2\n", &Given { types: types(&["c=INT"]), ..given() }).is_err());
    }

    #[test]
    fn an_existing_table_decides_names_and_types() {
        let table = [
            Target { name: "Id".to_owned(), data_type: DataType::Int },
            Target { name: "temp".to_owned(), data_type: DataType::Float },
        ];
        let found = existing(vec!["temp".to_owned(), "id".to_owned()], "t", &table).expect("both there");
        assert_eq!(found[1].name, "Id");
        let error = existing(vec!["tmep".to_owned()], "t", &table).expect_err("not there");
        assert!(matches!(error, Stop::Message(text) if text.contains("did you mean \"temp\"?")));
    }

    #[test]
    fn names_are_made_plain() {
        assert_eq!(tidy_name("Humidity Ratio (%)"), "humidity_ratio____");
        assert_eq!(tidy_name("2nd"), "_2nd");
        assert_eq!(typed_name("\"Exact Name\""), "Exact Name");
        assert_eq!(typed_name("Temp"), "temp");
    }

    #[test]
    fn null_is_an_empty_field_without_quotes() {
        assert!(given().is_null("", || false));
        assert!(!given().is_null("", || true));
        assert!(given().is_null("NULL", || false));
        let dash = Given { null: Some("-".to_owned()), ..given() };
        assert!(dash.is_null("-", || true));
    }
}
