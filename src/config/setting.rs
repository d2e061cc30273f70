//! The list of settings: name, type, default, bounds and reason, each written once.
//!
//! From this one list come the typed [`Config`], the commented default file, the known names behind "did you mean",
//! the environment variables and `config show`. A setting added here is in all of them.
//!
//! * Every default lies within its own bounds and is written in the notation a person would use.
//! * The doc comment of a setting is also its comment in `config/chronos.toml`.

use super::cluster::Member;
use super::name::{Address, GroupName, NodeId, Secret};
use super::quantity::{Bytes, Span};
use super::unit::{Raw, Setting};
use std::path::PathBuf;

/// One entry of the list, without its type.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The TOML table.
    pub section: &'static str,
    /// The key within it.
    pub name: &'static str,
    /// The reason, line by line.
    pub docs: &'static [&'static str],
    /// The default; empty where the setting is unset by default.
    pub default: &'static str,
    /// What a value may look like, for a setting without a default.
    pub example: &'static str,
}

/// The section's own comment.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The TOML table.
    pub name: &'static str,
    /// What it is about, line by line.
    pub docs: &'static [&'static str],
}

/// Refuses a value outside its bounds, in the notation of the bounds.
fn within<T: Setting>(value: &T, low: &str, high: &str) -> Result<(), String> {
    let bound = |text: &str| T::read(&Raw::Text(text.to_owned()));
    if value.toml().is_some() && (*value < bound(low)? || *value > bound(high)?) {
        return Err(format!("{} is not between {low} and {high}", value.show()));
    }
    Ok(())
}

fn read_default<T: Setting>(text: &str) -> T {
    T::read(&Raw::Text(text.to_owned())).expect("every default in this file is read by a test")
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident: $type:ty = $default:literal $(in $low:literal ..= $high:literal)? $(like $example:literal)?;
            )+
            $( beside $other:ident: $other_type:ty = $other_doc:literal; )?
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $name: $type, )+
                $( #[doc = $other_doc] pub $other: $other_type, )?
            }
        )+

        /// Every setting of a node, with its type.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        /// The sections, in the order of the default file.
        pub const SECTIONS: &[Section] = &[
            $( Section { name: stringify!($section), docs: &[$($section_doc),+] }, )+
        ];

        /// The settings, in the order of the default file.
        pub const SETTINGS: &[Known] = &[$($(
            Known {
                section: stringify!($section),
                name: stringify!($name),
                docs: &[$($doc),+],
                default: $default,
                example: concat!($($example)?),
            },
        )+)+];

        impl Default for Config {
            fn default() -> Config {
                Config {
                    $( $section: $Section {
                        $( $name: read_default::<$type>($default), )+
                        $( $other: <$other_type>::default(), )?
                    }, )+
                }
            }
        }

        impl Config {
            /// Sets one value; the error completes the sentence `section.name: ...`.
            pub(super) fn set(&mut self, section: &str, name: &str, raw: &Raw) -> Result<(), String> {
                match (section, name) {
                    $($(
                        (stringify!($section), stringify!($name)) => {
                            let value = <$type as Setting>::read(raw)?;
                            $( within(&value, $low, $high)?; )?
                            self.$section.$name = value;
                            Ok(())
                        }
                    )+)+
                    _ => Err("unknown setting".to_owned()),
                }
            }

            /// One value for people; secrets stay secret.
            pub fn show(&self, section: &str, name: &str) -> Option<String> {
                match (section, name) {
                    $($( (stringify!($section), stringify!($name)) => Some(self.$section.$name.show()), )+)+
                    _ => None,
                }
            }

            /// One value as a number: bytes, milliseconds or a count; nothing where it is none, or not set.
            pub fn number(&self, section: &str, name: &str) -> Option<u64> {
                match (section, name) {
                    $($( (stringify!($section), stringify!($name)) => self.$section.$name.number(), )+)+
                    _ => None,
                }
            }

            /// One value as TOML; nothing where it is not set.
            pub fn toml(&self, section: &str, name: &str) -> Option<String> {
                match (section, name) {
                    $($( (stringify!($section), stringify!($name)) => self.$section.$name.toml(), )+)+
                    _ => None,
                }
            }
        }
    };
}

settings! {
    /// This node: its name, where it listens and where its files are.
    node: Node {
        /// The node's name, and the name of its directory in `data_dir`. Letters, digits, '.', '_' and '-'.
        id: NodeId = "node1";
        /// Where gRPC listens. The HTTP port is 1000 above. Port 0 takes free ports and writes them to
        /// addresses.json in the node's directory. Loopback by default: a database is not for everyone to reach.
        address: Address = "127.0.0.1:8000";
        /// Where others reach this node, if that is not the address it listens on: what it tells people and `/status`.
        advertise: Option<Address> = "" like "gateway.local:8000";
        /// Directory of the databases; this node's files are in `data_dir/<id>`.
        data_dir: PathBuf = "data";
    }

    /// The group that this node belongs to.
    cluster: Cluster {
        /// Told apart from others by this, beside the members that it begins with: nodes that were given different names
        /// refuse each other, so that two groups with the same addresses do not mix. Counts when a directory is made.
        name: Option<GroupName> = "" like "plant-7";
        beside members: Vec<Member> = "The members, in the order they were written; none for a node on its own.";
    }

    /// The order of writes.
    raft: Raft {
        /// A member that hears no leader for this long, and up to twice as long by chance, stands for election. Longer
        /// where links are slow; about the same on all members.
        election_timeout: Span = "500ms" in "500ms" ..= "1min";
        /// How often a leader says that it is there: at least five times in an election timeout.
        heartbeat: Span = "100ms" in "20ms" ..= "10s";
        /// The newest entries of the log that are kept in memory for other members; older ones are read from disk.
        memory_bytes_max: Bytes = "4 MiB" in "1 MiB" ..= "1 GiB";
        /// Writes proposed and not yet applied; above it new ones are told "overloaded". One is always let through. Four of
        /// the largest (`limits.command_bytes_max`): with less, statements that are large at once would refuse each other.
        /// Their bytes come on top of `storage.memory_bytes_max` until they are applied.
        proposals_bytes_max: Bytes = "32 MiB" in "1 MiB" ..= "1 GiB";
        /// Log kept for members that lag, beside what a restart needs. One that lags further gets a snapshot.
        log_keep_bytes_max: Bytes = "256 MiB" in "0 B" ..= "1 TB";
        /// Entries behind from which on a member that has nothing is brought a snapshot, though the log has them all: the
        /// state is what lives of what the log repeats, and is not applied again by the processor that serves clients.
        snapshot_lag: u64 = "100000" in "1" ..= "1000000000";
        /// Log that a witness keeps for the members with rows. Long enough for one of them to be away for a while; at the
        /// limit the witness takes no more, so that it stops counting and its disk does not fill. At least four segments.
        witness_log_bytes_max: Bytes = "1 GiB" in "4 MiB" ..= "1 TB";
        /// Time between comparisons of all copies by a hash of their content. Copies that differ are an alarm; one that
        /// more than half contradict is brought anew.
        compare_interval: Span = "1d" in "1s" ..= "365d";
        /// How far a leader's wall clock may be from those of the others before it warns and hands over. Rows expire by
        /// the leader's clock. More than `election_timeout`, for so late an answer still says what its sender's clock is.
        clock_drift_max: Span = "1min" in "1s" ..= "1d";
    }

    /// Memory, log and files.
    storage: Storage {
        /// Memory for rows in flight, caches and queries: 25 % memtables, 25 % cache, 30 % queries, 20 % the rest. The rest
        /// is what long statements keep of memtables that were flushed meanwhile; two may keep 50 %, which makes 30 % more.
        /// The process takes up to 40 MB beside that. 48 MB suit a small gateway.
        memory_bytes_max: Bytes = "64 MB" in "16 MB" ..= "1 TB";
        /// Log written since the last seal at which the hot store is sealed into a file. Larger means fewer and
        /// larger files, and a longer replay after a power cut.
        seal_wal_bytes: Bytes = "64 MiB" in "4 MiB" ..= "16 GiB";
        /// Size of one log segment; segments are recycled, not rewritten.
        segment_bytes: Bytes = "16 MiB" in "1 MiB" ..= "1 GiB";
        /// How long a write may wait for others to share its fsync. 0 adds no delay; 5ms spares flash memory.
        commit_linger: Span = "0s" in "0s" ..= "1s";
        /// Free disk below which writes are refused while reads and deletes go on, and below which a leader hands over to a
        /// voter that has room. Unset: twice `seal_wal_bytes`.
        disk_reserve: Option<Bytes> = "" in "0 B" ..= "1 TB" like "128 MiB";
        /// One disk call that takes longer than this ends the process, so that a supervisor can act.
        disk_stall_max: Span = "60s" in "1s" ..= "1h";
        /// A read view older than this fails with "snapshot too old", so that files can be deleted.
        view_age_max: Span = "10min" in "1s" ..= "1d";
        /// Superseded data that read views may keep on disk all together; the oldest that keeps too much fails with
        /// "snapshot too old". Of memory they keep at most twice the memtables' share.
        pinned_bytes_max: Bytes = "256 MiB" in "1 MiB" ..= "1 TB";
        /// Time between the passes that read every block on disk and verify its checksum, a little at a time.
        scrub_interval: Span = "7d" in "1s" ..= "365d";
    }

    /// Rows that expire.
    ttl: Ttl {
        /// Seconds between the passes that give expired rows' space back. Expired rows are never seen, whatever this is.
        cleanup_interval_secs: u64 = "3600" in "1" ..= "86400";
    }

    /// Delivery of changes to a cloud node.
    sync: Sync {
        /// Where to deliver. Unset: nothing is queued.
        target: Option<String> = "" like "http://cloud.example:8000";
        /// Seconds between deliveries while there is nothing new, and after a failure.
        interval_secs: u64 = "5" in "1" ..= "86400";
        /// Operations in one delivery.
        batch_size: u64 = "100" in "1" ..= "100000";
    }

    /// The HTTP door: health, metrics, status, SQL as JSON.
    http: Http {
        /// Where HTTP listens. Unset: the host of node.address, its port plus 1000.
        address: Option<Address> = "" like "127.0.0.1:9000";
        /// Whether `/metrics` is answered without token and certificate, as `/health` and `/ready` always are.
        metrics_open: bool = "false";
    }

    /// Who may read and write. Without a token anyone who reaches the port may do both. Each token may also stand in a
    /// file of its own, which is read again, as this file is, on SIGHUP.
    auth: Auth {
        /// Bearer token that may read and write. Better set as `CHRONOS_AUTH_TOKEN_ADMIN` than written here.
        token_admin: Option<Secret> = "" like "a long random text";
        /// File that holds it instead.
        token_admin_file: Option<PathBuf> = "" like "/etc/chronos/admin.token";
        /// Bearer token that may only read. Better set as `CHRONOS_AUTH_TOKEN_READONLY`.
        token_readonly: Option<Secret> = "" like "another long random text";
        /// File that holds it instead.
        token_readonly_file: Option<PathBuf> = "" like "/etc/chronos/readonly.token";
        /// What the nodes of a group show each other, the same on all of them. Certificates (see below) do as well, unless
        /// clients have tokens: then a group needs this one too.
        cluster_token: Option<Secret> = "" like "a third long random text";
        /// File that holds it instead; of several lines the first is shown, and each is taken, while it is changed.
        cluster_token_file: Option<PathBuf> = "" like "/etc/chronos/cluster.token";
        /// Whether values are left out of the `audit_sql` lines in the log: true or false.
        audit_redact_literals: bool = "false";
    }

    /// Encryption of gRPC and HTTP. All of `cert`, `key` and `ca_cert`, or none. gRPC then takes clients with a certificate
    /// of that authority only; HTTP answers others nothing but `/health` and `/ready`. The files are read again on SIGHUP.
    tls: Tls {
        /// PEM file with the certificate of this node, and those between it and the authority.
        cert: Option<PathBuf> = "" like "/etc/chronos/node.pem";
        /// PEM file with its private key.
        key: Option<PathBuf> = "" like "/etc/chronos/node.key";
        /// PEM file with the authority that signs the certificates of peers and clients.
        ca_cert: Option<PathBuf> = "" like "/etc/chronos/ca.pem";
        /// The name that the certificates of peers must carry; for the client commands that of the node they talk to.
        domain: String = "localhost";
    }

    /// What is logged, and where.
    log: Log {
        /// "error", "warn", "info", "debug", or by module: `info,chronos::storage=debug`. `RUST_LOG` overrides.
        level: String = "info";
        /// File to write to instead of standard error.
        file: Option<PathBuf> = "" like "/var/log/chronos/chronos.log";
        /// Megabytes after which the file is rotated: chronos.log becomes chronos.log.1, and so on.
        max_size_mb: u64 = "10" in "1" ..= "10000";
        /// Rotated files kept beside the current one.
        max_files: u64 = "3" in "1" ..= "1000";
    }

    /// Ceilings. A request beyond one gets an error that names it; nothing is cut off silently.
    limits: Limits {
        /// Time one statement may take; of a streamed answer, the time until its first rows and between two batches.
        statement_timeout: Span = "30s" in "1ms" ..= "1d";
        /// Size of one statement's text, or of a batch's texts together.
        statement_bytes_max: Bytes = "16 MiB" in "64 KiB" ..= "256 MiB";
        /// Size of one answer that is not streamed, those of a batch together. Larger results: `QuerySql`, as `chronos client`.
        response_bytes_max: Bytes = "16 MiB" in "64 KiB" ..= "256 MiB";
        /// Memory of all requests and answers on their way at the doors together. A request beyond it waits, an answer
        /// fails with 53200. Unset: one and a half times the largest request and the largest answer.
        in_flight_bytes_max: Option<Bytes> = "" in "256 KiB" ..= "2 GiB" like "48 MiB";
        /// Memory that all running queries share. Unset: 30 % of `storage.memory_bytes_max`.
        query_memory_bytes: Option<Bytes> = "" in "1 MiB" ..= "1 TB" like "19 MiB";
        /// Size of one entry of the log; a statement with larger effects is staged in parts.
        command_bytes_max: Bytes = "8 MiB" in "1 MiB" ..= "64 MiB";
        /// Size of all effects of one statement.
        statement_effects_max: Bytes = "256 MiB" in "8 MiB" ..= "4 GiB";
        /// Open connections of each door, gRPC and HTTP; each costs some 10 KiB. At gRPC one more is refused (53300), but for
        /// other nodes of the group; at HTTP it waits until one ends.
        connections: u64 = "1024" in "1" ..= "100000";
        /// Messages that wait for one actor before callers are told "overloaded".
        mailbox: u64 = "1024" in "16" ..= "65536";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_own_bounds() {
        let mut config = Config::default();
        for known in SETTINGS {
            let raw = Raw::Text(known.default.to_owned());
            config.set(known.section, known.name, &raw).unwrap_or_else(|error| panic!("{}: {error}", known.name));
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn every_example_is_a_valid_value() {
        for known in SETTINGS.iter().filter(|known| !known.example.is_empty()) {
            let raw = Raw::Text(known.example.to_owned());
            Config::default()
                .set(known.section, known.name, &raw)
                .unwrap_or_else(|error| panic!("{}: {error}", known.name));
        }
    }

    #[test]
    fn a_value_out_of_bounds_names_them() {
        let error = Config::default().set("limits", "mailbox", &Raw::Integer(3));
        assert_eq!(error, Err("3 is not between 16 and 65536".to_owned()));
    }
}
