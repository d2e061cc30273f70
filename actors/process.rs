//! What the operating system says of this process, and of the memory that it may take.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time so far.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// Reads `/proc`; what cannot be read is zero, since a missing number must not fail a scrape.
pub fn usage() -> Usage {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Usage {
        cpu: Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        resident_bytes: resident_kib * 1024,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
    }
}

/// How much memory there is for this process, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The least of all limits that apply.
    pub bytes: u64,
    /// The file that it stands in.
    pub source: PathBuf,
}

/// What a process may take: its control group's limit or one above it (version 2 or 1), else the memory of the machine.
/// None where nothing says so, as without `/proc`.
pub fn memory() -> Option<Memory> {
    memory_below(Path::new("/"))
}

fn memory_below(root: &Path) -> Option<Memory> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    // `0::/a/b` of version 2, `7:cpu,memory:/a/b` of version 1.
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mount = root.join(mount);
        let own = mount.join(group.trim_start_matches('/'));
        // In a container the path is that of the host, and the container's own group is the mount itself.
        let above = own.ancestors().take_while(|path| path.starts_with(&mount));
        found.extend(above.filter_map(|path| limit(path.join(file))));
    }
    found.extend(machine(root.join("proc/meminfo")));
    found.into_iter().min_by_key(|memory| memory.bytes)
}

/// A limit in a file of its own; `max` is none. Version 1 writes a number beyond any machine for that.
fn limit(source: PathBuf) -> Option<Memory> {
    let bytes = std::fs::read_to_string(&source).ok()?.trim().parse().ok()?;
    Some(Memory { bytes, source })
}

fn machine(source: PathBuf) -> Option<Memory> {
    let text = std::fs::read_to_string(&source).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(Memory { bytes: kib.saturating_mul(1024), source })
}

/// What to say where a budget does not fit; `beside` is what the process takes on top of it, and `least` the smallest
/// budget that may be set.
pub fn memory_warning(memory: &Memory, budget: u64, beside: u64, least: u64) -> Option<String> {
    if budget.saturating_add(beside) <= memory.bytes {
        return None;
    }
    let mega = |bytes: u64| bytes / 1_000_000;
    let room = memory.bytes.saturating_sub(beside);
    let advice = if room >= least {
        format!("set it to \"{} MB\" at most", mega(room))
    } else {
        format!("give the process {} MB at least", mega(least + beside))
    };
    Some(format!(
        "storage.memory_bytes_max ({} MB) and {} MB for the program itself do not fit into the {} MB that {} allows: the \
         kernel may end the process; {advice}",
        mega(budget),
        mega(beside),
        mega(memory.bytes),
        memory.source.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn memory_is_the_least_of_what_the_control_groups_and_the_machine_have() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(memory_below(root), None, "nothing says anything");
        write(root, "proc/meminfo", "MemFree: 7 kB\nMemTotal:       4000000 kB\n");
        let found = |bytes: u64, source: &str| Some(Memory { bytes, source: root.join(source) });
        assert_eq!(memory_below(root), found(4_096_000_000, "proc/meminfo"));
        write(root, "proc/self/cgroup", "0::/system.slice/chronos.service\n");
        write(root, "sys/fs/cgroup/system.slice/chronos.service/memory.max", "max\n");
        assert_eq!(memory_below(root), found(4_096_000_000, "proc/meminfo"), "max is no limit");
        write(root, "sys/fs/cgroup/system.slice/memory.max", "100000000\n");
        assert_eq!(
            memory_below(root),
            found(100_000_000, "sys/fs/cgroup/system.slice/memory.max"),
            "of the slice above"
        );
        write(root, "sys/fs/cgroup/system.slice/chronos.service/memory.max", "90000000\n");
        let own = "sys/fs/cgroup/system.slice/chronos.service/memory.max";
        assert_eq!(memory_below(root), found(90_000_000, own));
        write(root, "proc/self/cgroup", "5:cpu,memory:/docker/1\n2:pids:/\n0::/nowhere\n");
        write(root, "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "80000000\n");
        assert_eq!(memory_below(root), found(80_000_000, "sys/fs/cgroup/memory/memory.limit_in_bytes"));
    }

    #[test]
    fn a_budget_that_does_not_fit_is_told_with_one_that_does() {
        let memory = |bytes| Memory { bytes, source: PathBuf::from("/f") };
        let warning = |bytes| memory_warning(&memory(bytes), 64_000_000, 40_000_000, 16_000_000);
        assert_eq!(warning(104_000_000), None);
        let told = warning(100_000_000).expect("4 MB are missing");
        assert!(told.starts_with("storage.memory_bytes_max (64 MB) and 40 MB for the program"), "{told}");
        assert!(told.contains("100 MB that /f allows") && told.ends_with("set it to \"60 MB\" at most"), "{told}");
        assert!(warning(50_000_000).expect("too small").ends_with("give the process 56 MB at least"));
    }

    #[test]
    fn a_process_uses_memory_and_files() {
        let usage = usage();
        assert!(usage.resident_bytes > 1 << 20 && usage.open_files >= 3, "{usage:?}");
    }
}
