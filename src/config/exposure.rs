//! Who reaches what: settings that together leave a door open, or that contradict each other about keys.
//!
//! * A door that everybody in a network may use is said aloud at start, once.
//! * A group whose members anybody may pretend to be does not start, except on loopback, where it is said.
//! * Whether a file holds what it should is seen by whoever reads it; here only names are looked at.

use super::{Config, Contradiction, MEMBERS};
use std::path::Path;

impl Config {
    /// True where requests need a token.
    pub fn asks_for_tokens(&self) -> bool {
        let auth = &self.auth;
        let inline = auth.token_admin.is_some() || auth.token_readonly.is_some();
        inline || auth.token_admin_file.is_some() || auth.token_readonly_file.is_some()
    }

    /// True where connections are encrypted, and those of gRPC prove who they are.
    pub fn is_encrypted(&self) -> bool {
        self.tls.cert.is_some()
    }

    fn has_cluster_token(&self) -> bool {
        self.auth.cluster_token.is_some() || self.auth.cluster_token_file.is_some()
    }

    /// True where the nodes of a group know each other. Where tokens tell clients apart a certificate is not enough: clients
    /// have one too.
    fn knows_peers(&self) -> bool {
        self.has_cluster_token() || (self.is_encrypted() && !self.asks_for_tokens())
    }

    pub(super) fn has_peers(&self) -> bool {
        self.cluster.peers(&self.node.id).next().is_some()
    }

    /// What is said once, when the node starts.
    pub(super) fn exposures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let auth = &self.auth;
        let http = self.http_address().filter(|http| !http.is_loopback());
        let reached = if self.node.address.is_loopback() { http } else { Some(self.node.address.clone()) };
        if let Some(address) = reached {
            if !self.asks_for_tokens() && !self.is_encrypted() {
                lines.push(format!(
                    "AUTHENTICATION IS OFF: whoever reaches {address} may read and write every table; set \
                     CHRONOS_AUTH_TOKEN_ADMIN, or listen on 127.0.0.1"
                ));
            } else if !self.is_encrypted() {
                lines.push(format!("tokens and rows travel in the clear to and from {address}: set tls.cert"));
            }
        }
        if self.asks_for_tokens() && auth.token_admin.is_none() && auth.token_admin_file.is_none() {
            lines.push("auth.token_readonly is set and auth.token_admin is not: nobody may write".to_owned());
        }
        if self.has_peers() && !self.knows_peers() {
            lines.push(
                "any program on this machine may pretend to be a member of the group: set auth.cluster_token"
                    .to_owned(),
            );
        }
        lines
    }

    /// The files that settings name and that must be there when the node starts.
    pub fn files(&self) -> Vec<(&'static str, &'static str, &Path)> {
        let (auth, tls) = (&self.auth, &self.tls);
        let named = [
            ("auth", "token_admin_file", &auth.token_admin_file),
            ("auth", "token_readonly_file", &auth.token_readonly_file),
            ("auth", "cluster_token_file", &auth.cluster_token_file),
            ("tls", "cert", &tls.cert),
            ("tls", "key", &tls.key),
            ("tls", "ca_cert", &tls.ca_cert),
        ];
        named.into_iter().filter_map(|(section, name, path)| Some((section, name, path.as_deref()?))).collect()
    }

    /// What is wrong about keys.
    pub(super) fn unsafe_secrets(&self) -> Vec<Contradiction> {
        const ADMIN: &[(&str, &str)] = &[("auth", "token_admin_file"), ("auth", "token_admin")];
        const READER: &[(&str, &str)] = &[("auth", "token_readonly_file"), ("auth", "token_readonly")];
        const CLUSTER: &[(&str, &str)] = &[("auth", "cluster_token_file"), ("auth", "cluster_token")];
        const READER_ADMIN: &[(&str, &str)] = &[("auth", "token_readonly"), ("auth", "token_admin")];
        const CLUSTER_ADMIN: &[(&str, &str)] = &[("auth", "cluster_token"), ("auth", "token_admin")];
        const CLUSTER_READER: &[(&str, &str)] = &[("auth", "cluster_token"), ("auth", "token_readonly")];
        const ASKED: &[(&str, &str)] = &[
            ("auth", "token_admin"),
            ("auth", "token_admin_file"),
            ("auth", "token_readonly"),
            ("auth", "token_readonly_file"),
            MEMBERS,
        ];
        let auth = &self.auth;
        let mut wrong = Vec::new();
        for (about, name, token, file) in [
            (ADMIN, "token_admin", &auth.token_admin, &auth.token_admin_file),
            (READER, "token_readonly", &auth.token_readonly, &auth.token_readonly_file),
            (CLUSTER, "cluster_token", &auth.cluster_token, &auth.cluster_token_file),
        ] {
            if token.is_some() && file.is_some() {
                let message = format!("auth.{name} and auth.{name}_file are both set: which of them counts?");
                wrong.push(Contradiction::of(about, message));
            }
        }
        for (about, one, other, why) in [
            (READER_ADMIN, &auth.token_readonly, &auth.token_admin, "who has it, may it write?"),
            (CLUSTER_ADMIN, &auth.cluster_token, &auth.token_admin, "who has it, is it a node or an operator?"),
            (CLUSTER_READER, &auth.cluster_token, &auth.token_readonly, "who may read could pretend to be a node"),
        ] {
            if one.is_some() && one == other {
                let message = format!("auth.{} and auth.{} are the same: {why}", about[1].1, about[0].1);
                wrong.push(Contradiction::of(about, message));
            }
        }
        let tls = [("cert", &self.tls.cert), ("key", &self.tls.key), ("ca_cert", &self.tls.ca_cert)];
        let missing: Vec<&str> = tls.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
        if !missing.is_empty() && missing.len() < tls.len() {
            let message = format!("tls needs cert, key and ca_cert together; missing: {}", missing.join(", "));
            wrong.push(Contradiction::of(&[("tls", "cert"), ("tls", "key"), ("tls", "ca_cert")], message));
        }
        if self.has_peers() && self.asks_for_tokens() && !self.has_cluster_token() {
            let message = "auth.cluster_token must be set on all nodes of a group where clients have tokens: without it \
                           nobody is taken for a peer";
            wrong.push(Contradiction::of(ASKED, message.to_owned()));
        } else if self.has_peers() && !self.knows_peers() && !self.node.address.is_loopback() {
            let message = format!(
                "whoever reaches {} could pretend to be a member of the group: set auth.cluster_token on all nodes, or \
                 tls.cert, tls.key and tls.ca_cert",
                self.node.address
            );
            wrong.push(Contradiction::of(&[("node", "address"), MEMBERS], message));
        }
        wrong
    }
}
