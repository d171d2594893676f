//! What the kernel counts of a broker's process: processor time, memory, bytes that it had written.
//!
//! Read before and after; the difference is what the work in between cost. A broker whose process is not known costs nothing
//! here, and is left out of the tables that tell.

use anyhow::Context;

/// The kernel counts processor time in hundredths of a second.
const TICKS_A_SECOND: f64 = 100.0;

/// What a process has used until now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) processor_seconds: f64,
    /// Bytes that it made the kernel write to a device. Counted when a page gets dirty, so that one which is written twice before
    /// it goes out counts once.
    pub(super) written_bytes: f64,
}

impl Used {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            processor_seconds: self.processor_seconds - before.processor_seconds,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

pub(super) fn used(pid: u32) -> anyhow::Result<Used> {
    let stat = read(pid, "stat")?;
    // The name may hold spaces and parentheses: the fields begin behind the last one.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    let io = read(pid, "io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok());
    Ok(Used { processor_seconds: (ticks(11) + ticks(12)) / TICKS_A_SECOND, written_bytes: written.unwrap_or_default() })
}

/// Resident memory, in KiB.
pub(super) fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    let status = read(pid, "status")?;
    let found = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    found.context("the kernel does not say how much memory is resident")
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_and_its_time_never_runs_back() {
        let pid = std::process::id();
        let before = super::used(pid).expect("counted");
        let used = super::used(pid).expect("counted").since(before);
        assert!(used.processor_seconds >= 0.0 && super::resident_kib(pid).expect("counted") > 100.0);
    }
}
