//! `chronos config`: check a file, print the default one, show what counts and why.

use super::{Environment, Stdout, Stop, logging, node};
use chronos::config::{Loaded, Problem, Problems, SETTINGS, Sources, default_file, load};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  chronos config default > chronos.toml          # every setting, with its default and reason
  chronos config check chronos.toml              # says every problem, with its line
  chronos config show --origin --config chronos.toml";

/// What `config` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check a configuration file
    #[command(after_help = "Example:\n  chronos config check config/edge.toml")]
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print every setting with its default and the reason for it
    #[command(after_help = "Example:\n  chronos config default > chronos.toml")]
    Default,
    /// Print the settings that `chronos node` would use with the same flags
    #[command(after_help = "Example:\n  chronos config show --origin --config chronos.toml --address 127.0.0.1:8001")]
    Show(Box<Show>),
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    settings: node::Settings,
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
}

/// Runs one of them.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    let mut out = Stdout::lock();
    let written = match &arguments.command {
        Command::Check { file } => {
            let text = node::read_file(file)?;
            let name = file.display().to_string();
            let loaded = load(&Sources { file: Some((&name, &text)), ..Sources::default() })
                .map_err(|problems| Stop::Message(problems.to_string()))?;
            check_start(&loaded).map_err(|problems| Stop::Message(problems.to_string()))?;
            writeln!(out, "{name}: ok")
        }
        Command::Default => out.write_all(default_file().as_bytes()),
        Command::Show(show) => return self::show(show, environment, &mut out),
    };
    written.and_then(|()| out.flush()).map_err(|error| Stop::output(&error))
}

/// What only a start would find out: what this version cannot do, levels that cannot be read, and files that are not there.
fn check_start(loaded: &Loaded) -> Result<(), Problems> {
    let place = |section: &str, name: &str| loaded.origin(section, name).clone();
    let mut problems = loaded.supported().err().map_or_else(Vec::new, |problems| problems.0);
    if let Err(message) = logging::check(&loaded.config.log.level) {
        problems.push(Problem { origin: place("log", "level"), message });
    }
    for (section, name, path) in loaded.config.files() {
        if let Err(error) = File::open(path) {
            let message = format!("{section}.{name}: cannot read {}: {error}", path.display());
            problems.push(Problem { origin: place(section, name), message });
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems::sorted(problems)) }
}

fn show(show: &Show, environment: Environment, out: &mut Stdout) -> Result<(), Stop> {
    let loaded = show.settings.load(environment)?;
    let lines: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|known| {
            let value = loaded.config.show(known.section, known.name).unwrap_or_default();
            let origin = loaded.origin(known.section, known.name).to_string();
            (format!("{}.{} = {value}", known.section, known.name), origin)
        })
        .collect();
    let width = lines.iter().map(|(setting, _)| setting.len()).max().unwrap_or(0);
    let mut written = Ok(());
    for (setting, origin) in &lines {
        let line = if show.origin { format!("{setting:width$}  # {origin}") } else { setting.clone() };
        written = written.and_then(|()| writeln!(out, "{line}"));
    }
    for member in &loaded.config.cluster.members {
        written = written.and_then(|()| writeln!(out, "cluster.members: {member} ({})", member.role));
    }
    written.and_then(|()| out.flush()).map_err(|error| Stop::output(&error))
}
