//! What machine this is: the facts without which a figure says nothing.

use std::{fs, path::Path};

/// Facts for the head of a report.
pub(crate) fn facts(folder: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let build =
        if cfg!(debug_assertions) { "debug: the figures say nothing, build with --release" } else { "optimized" };
    let command: Vec<String> = std::env::args().skip(1).collect();
    Ok(vec![
        ("command", format!("cairn {}", command.join(" "))),
        ("version", format!("{} ({build})", env!("CARGO_PKG_VERSION"))),
        ("processor", format!("{}, {} cores", processor(), std::thread::available_parallelism()?)),
        ("memory", format!("{} MiB", memory_kib() / 1024)),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("disk", file_system(folder)),
        ("load average at the start", read("/proc/loadavg")),
    ])
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

fn memory_kib() -> u64 {
    let text = read("/proc/meminfo");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    total.unwrap_or(0)
}

/// The file system that holds a folder: the longest mount point above it.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let text = read("/proc/mounts");
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(point).then_some((point.len(), device, kind))
    });
    match mounts.max() {
        Some((_, device, kind @ ("tmpfs" | "ramfs"))) => {
            format!("{kind} on {device}: memory, so syncs cost nothing here")
        }
        Some((_, device, kind)) => format!("{kind} on {device}"),
        None => "unknown".to_owned(),
    }
}
