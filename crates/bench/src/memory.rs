//! Resident memory of Cairn's process, as the kernel counts it.

use anyhow::Context;

use crate::{
    children::Stage,
    report::{Report, Row},
};

const SECTION: &str = "Memory";

/// Before any load.
pub(crate) fn idle(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    report.add(Row::new(SECTION, "resident, idle after the start", resident(stage.cairn.pid, "VmRSS:")?, "MiB"));
    Ok(())
}

/// After the load of this run, and the most that was held in between.
pub(crate) fn after(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    report.add(Row::new(SECTION, "resident, after the load above", resident(stage.cairn.pid, "VmRSS:")?, "MiB"));
    report.add(Row::new(
        SECTION,
        "resident, the most under the load above",
        resident(stage.cairn.pid, "VmHWM:")?,
        "MiB",
    ));
    Ok(())
}

/// What the kernel says of a process, in MiB.
pub(crate) fn resident(pid: u32, field: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("the kernel does not say how much memory is resident")? / 1024.0)
}
