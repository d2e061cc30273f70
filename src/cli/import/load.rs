//! Sends batches: several statements in flight to a node, or one after another into an embedded engine.
//!
//! ```text
//! thread: file ──> batches ──(bounded channel)──> task: up to 4 statements in flight ──> node
//!                                                  (one, where the table has no key)
//! ```
//!
//! * A batch that the server refuses for what is in it is halved until the bad rows stand alone; the rest goes in.
//! * A statement is sent again where it surely did nothing; where several nodes are named, also where it may have been
//!   applied: it has a name (remote/name.rs), and the group executes that once.
//! * Where its outcome stays unknown (`in doubt`) the import stops, naming the lines.

use super::super::Stop;
use super::super::remote::{self, Names, Target, failed, from_status};
use super::super::session::{Session, Table};
use super::batch::{Batch, Rejected};
use crate::actors::messages::REQUEST_ID;
use crate::actors::outcome::is_outcome;
use crate::actors::proto::wire::SqlRequest;
use crate::actors::proto::wire::sql_service_client::SqlServiceClient;
use chronos::Error;
use chronos::error::Kind;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

/// Statements on their way at once: while one waits for its fsync, the next is parsed. More gains nothing on two cores.
const IN_FLIGHT_MAX: usize = 4;

/// Batches read ahead of the sender.
const READ_AHEAD: usize = 2;

/// Attempts for a statement that did nothing and may work later; with the pauses below, some half a minute.
const ATTEMPTS_MAX: u32 = 12;

/// First pause between attempts; it doubles up to the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// What became of a batch.
#[derive(Debug)]
pub struct Done {
    /// Rows that are in.
    pub rows: u64,
    /// Rows that are not, and why.
    pub rejected: Vec<Rejected>,
    /// Bytes of the file up to the batch's end.
    pub position: u64,
}

/// In which order rows go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the file: a table without a key keeps its rows in the order in which they came.
    OfTheFile,
    /// Any: the key orders them.
    Any,
}

/// Where statements go.
pub enum Door<'a> {
    /// A running node.
    Remote(Target),
    /// An embedded engine.
    Local(&'a mut dyn Session),
}

/// Sends all batches; `done` hears of each.
pub fn load<I>(
    door: Door,
    insert: &str,
    order: Order,
    batches: I,
    mut done: impl FnMut(Done) -> Result<(), Stop>,
) -> Result<(), Stop>
where
    I: Iterator<Item = Result<Batch, Stop>> + Send + 'static,
{
    let runtime = remote::runtime()?;
    match door {
        Door::Local(session) => {
            let local = Local(RefCell::new(session));
            for batch in batches {
                done(runtime.block_on(one(&local, insert, batch?))?)?;
            }
            Ok(())
        }
        Door::Remote(target) => {
            let (sender, receiver) = tokio::sync::mpsc::channel(READ_AHEAD);
            // Ends by itself: with the file, or when the receiver has gone away.
            let reader = std::thread::spawn(move || {
                for batch in batches {
                    let ended = batch.is_err();
                    if sender.blocking_send(batch).is_err() || ended {
                        break;
                    }
                }
            });
            let outcome = runtime.block_on(send_all(target, insert, order, receiver, done));
            reader.join().map_err(|_| Stop::Failed(Error::internal("the reader of the file panicked")))?;
            outcome
        }
    }
}

async fn send_all(
    target: Target,
    insert: &str,
    order: Order,
    mut batches: tokio::sync::mpsc::Receiver<Result<Batch, Stop>>,
    mut done: impl FnMut(Done) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (at, client) = target.connect(0).await?;
    let names = RefCell::new(Names::new(target.addresses.len() > 1));
    let node = Node { target, state: RefCell::new((at, client)), names };
    let in_flight_max = match order {
        Order::OfTheFile => 1,
        Order::Any => IN_FLIGHT_MAX,
    };
    let mut in_flight = FuturesUnordered::new();
    let mut end = None;
    loop {
        tokio::select! {
            batch = batches.recv(), if end.is_none() && in_flight.len() < in_flight_max => match batch {
                Some(Ok(batch)) => in_flight.push(one(&node, insert, batch)),
                // What is on its way arrives, and counts.
                Some(Err(stop)) => end = Some(Err(stop)),
                None => end = Some(Ok(())),
            },
            Some(outcome) = in_flight.next(), if !in_flight.is_empty() => done(outcome?)?,
            else => return end.unwrap_or(Ok(())),
        }
    }
}

/// What a statement is called, where it may be sent again.
type Name = MetadataValue<Ascii>;

/// Runs statements; under one name at most once.
trait Runs {
    /// A name for a statement, where there are names.
    fn name(&self, statement: &str) -> Result<Option<Name>, Error>;

    /// True where names are refused for the time in them: there are none from then on.
    fn refuses_names(&self, error: &Error) -> bool;

    async fn run(&self, statement: &str, name: Option<&Name>) -> Result<u64, Error>;
}

/// A node, and the connection to it.
struct Node {
    target: Target,
    /// Position of the node in use, and its client. Never borrowed across an await.
    state: RefCell<(usize, SqlServiceClient<Channel>)>,
    names: RefCell<Names>,
}

impl Runs for Node {
    fn name(&self, statement: &str) -> Result<Option<Name>, Error> {
        self.names.borrow().next(statement)
    }

    fn refuses_names(&self, error: &Error) -> bool {
        self.names.borrow_mut().refused(error)
    }

    async fn run(&self, statement: &str, name: Option<&Name>) -> Result<u64, Error> {
        let mut request = self.target.request(SqlRequest { sql: statement.to_owned() })?;
        if let Some(name) = name {
            request.metadata_mut().insert(REQUEST_ID, name.clone());
        }
        let mut client = self.state.borrow().1.clone();
        match client.execute_sql(request).await {
            Ok(response) => {
                let response = response.into_inner();
                if response.success { Ok(response.affected) } else { Err(failed(&response)) }
            }
            Err(status) => Err(match remote::did_nothing(&status) {
                true => Error::unavailable(remote::reason(&status)),
                false if remote::broke(&status) => Error::in_doubt(remote::reason(&status)),
                false => from_status(&status),
            }),
        }
    }
}

impl Node {
    /// Goes on to the next node that answers.
    async fn reconnect(&self) -> Result<(), Error> {
        let next = self.state.borrow().0 + 1;
        let found = self.target.connect(next % self.target.addresses.len()).await?;
        *self.state.borrow_mut() = found;
        Ok(())
    }
}

struct Local<'a>(RefCell<&'a mut dyn Session>);

impl Runs for Local<'_> {
    fn name(&self, _: &str) -> Result<Option<Name>, Error> {
        Ok(None)
    }

    fn refuses_names(&self, _: &Error) -> bool {
        false
    }

    async fn run(&self, statement: &str, _: Option<&Name>) -> Result<u64, Error> {
        self.0.borrow_mut().run(statement, &mut Table::default())
    }
}

/// What else a door can do about a failure.
trait Recovers: Runs {
    async fn recover(&self, error: &Error);
}

impl Recovers for Node {
    async fn recover(&self, error: &Error) {
        if matches!(error.kind(), Kind::Unavailable | Kind::InDoubt) {
            // Where no node answers, the next attempt says so.
            let _ = self.reconnect().await;
        }
    }
}

impl Recovers for Local<'_> {
    async fn recover(&self, _: &Error) {}
}

/// Runs one statement until it succeeds, fails for good, or has been tried often enough.
async fn persist<R: Recovers>(door: &R, statement: &str) -> Result<u64, Error> {
    let mut name = door.name(statement)?;
    // Why an attempt may have been applied; under its name the next one says whether it was.
    let mut doubt: Option<Error> = None;
    let (mut attempts, mut pause) = (0, PAUSE.0);
    loop {
        let error = match door.run(statement, name.as_ref()).await {
            Ok(affected) => return Ok(affected),
            Err(error) => error,
        };
        attempts += 1;
        if doubt.is_none() && name.is_some() && door.refuses_names(&error) {
            name = None;
            continue;
        }
        let is_known = if doubt.is_some() { is_outcome(&error) } else { !may_be_asked_again(&error, name.is_some()) };
        if is_known {
            return Err(error);
        }
        if doubt.is_none() && error.kind() == Kind::InDoubt {
            doubt = Some(error.clone());
        }
        if attempts >= ATTEMPTS_MAX {
            return Err(doubt.unwrap_or(error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        door.recover(&error).await;
    }
}

/// True where a later attempt may go well, and does no harm.
fn may_be_asked_again(error: &Error, is_named: bool) -> bool {
    error.is_retryable() || (is_named && error.kind() == Kind::InDoubt)
}

/// Brings one batch in, all of it that can be.
async fn one<R: Recovers>(door: &R, insert: &str, mut batch: Batch) -> Result<Done, Stop> {
    let mut rejected = std::mem::take(&mut batch.rejected);
    let mut rows = 0;
    let mut todo: Vec<Range<usize>> = Vec::new();
    if batch.len() > 0 {
        todo.push(0..batch.len());
    }
    // Halving ends: a range of one row is either in or rejected.
    while let Some(range) = todo.pop() {
        match persist(door, &batch.statement(insert, range.clone())).await {
            Ok(affected) => rows += affected,
            Err(error) if is_about_rows(&error) && range.len() == 1 => {
                rejected.push(batch.reject(range.start, error.to_string()));
            }
            Err(error) if is_about_rows(&error) => {
                let middle = range.start + range.len() / 2;
                todo.push(middle..range.end);
                todo.push(range.start..middle);
            }
            Err(error) => {
                let (first, last) = batch.lines();
                return Err(Stop::Failed(error.context(format!("lines {first} to {last}"))));
            }
        }
    }
    rejected.sort_by_key(|row| row.line);
    Ok(Done { rows, rejected, position: batch.position })
}

/// True where the rows themselves are at fault: data exceptions (class 22) and violated constraints (class 23). Anything
/// else would be wrong for every row.
fn is_about_rows(error: &Error) -> bool {
    let state = error.sqlstate();
    error.kind() == Kind::Invalid && (state.as_str().starts_with("22") || state.as_str().starts_with("23"))
}

#[cfg(test)]
mod tests {
    use super::super::super::session::Sink;
    use super::super::shape::{Given, Shape};
    use super::super::source::Source;
    use super::*;
    use chronos::error::SqlState;

    /// Refuses every statement that holds a `9`, as a server refuses a bad row among good ones.
    #[derive(Default)]
    struct Picky {
        statements: Vec<String>,
    }

    impl Session for Picky {
        fn run(&mut self, statement: &str, _: &mut dyn Sink) -> chronos::Result<u64> {
            self.statements.push(statement.to_owned());
            if statement.contains('9') {
                return Err(Error::invalid(SqlState::UNIQUE_VIOLATION, "a duplicate"));
            }
            Ok(statement.matches('(').count() as u64)
        }
    }

    fn batches(rows: usize) -> Vec<Result<Batch, Stop>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.csv");
        let text: String = std::iter::once("a\n".to_owned()).chain((0..rows).map(|i| format!("{i}\n"))).collect();
        std::fs::write(&path, text).expect("writes");
        let given = Given { delimiter: b',', ..Given::default() };
        let input = super::super::input::Input::File(path);
        let shape = Shape::find(&input, &given, "x", None).expect("fits");
        let source = Source::new(input.bytes().expect("opens"), b',');
        super::super::batch::Batches::new(source, shape, given, 100).expect("reads").collect()
    }

    #[test]
    fn bad_rows_are_found_by_halving_and_the_rest_goes_in() {
        let mut picky = Picky::default();
        let (mut rows, mut lines) = (0, Vec::new());
        load(Door::Local(&mut picky), "I ", Order::OfTheFile, batches(16).into_iter(), |done| {
            rows += done.rows;
            lines.extend(done.rejected.into_iter().map(|row| row.line));
            Ok(())
        })
        .expect("loads");
        assert_eq!((rows, lines), (15, vec![11]));
        assert!(picky.statements.len() < 12, "{}", picky.statements.len());
    }

    #[test]
    fn what_is_wrong_with_the_statement_ends_the_import() {
        struct Absent;
        impl Session for Absent {
            fn run(&mut self, _: &str, _: &mut dyn Sink) -> chronos::Result<u64> {
                Err(Error::invalid(SqlState::UNDEFINED_TABLE, "no such table"))
            }
        }
        let outcome = load(Door::Local(&mut Absent), "I ", Order::OfTheFile, batches(3).into_iter(), |_| Ok(()));
        assert!(matches!(outcome, Err(Stop::Failed(error)) if error.message() == "lines 2 to 4: no such table"));
    }
}
