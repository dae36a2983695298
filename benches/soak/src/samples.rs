//! Memory and descriptors of the program under load, once a second.

use std::{fs, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::Result;

/// One value for each second.
#[derive(Default)]
pub struct Samples {
    /// The resident memory in bytes.
    pub resident: Vec<u64>,
    /// The number of open descriptors.
    pub descriptors: Vec<u64>,
}

impl Samples {
    /// Takes samples of the process `pid` for `duration`.
    pub async fn take(pid: u32, duration: Duration) -> Result<Self> {
        let mut samples = Self::default();
        let mut timer = interval(Duration::from_secs(1));
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for _ in 0..duration.as_secs() {
            timer.tick().await;
            samples.resident.push(resident(pid)?);
            samples
                .descriptors
                .push(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64);
        }
        Ok(samples)
    }

    /// The least and the greatest value of each quarter.
    pub fn describe(&self) -> String {
        let quarters = |values: &[u64], unit: u64| {
            let range = |part: &[u64]| {
                let (least, most) = (part.iter().min(), part.iter().max());
                format!(
                    "{}-{}",
                    least.map_or(0, |least| least / unit),
                    most.map_or(0, |most| most / unit)
                )
            };
            let parts = values.chunks(values.len().div_ceil(4).max(1)).map(range);
            parts.collect::<Vec<_>>().join(", ")
        };
        let (resident, descriptors) = (quarters(&self.resident, 1 << 20), quarters(&self.descriptors, 1));
        format!("resident MiB by quarter: {resident}; descriptors by quarter: {descriptors}")
    }
}

/// Whether the values of the second half grow by less than `bound`, by the line that fits them best.
pub fn levels_off(values: &[u64], bound: u64) -> bool {
    let half = &values[values.len() / 2..];
    let count = half.len() as f64;
    let mean_time = (count - 1.0) / 2.0;
    let mean = half.iter().sum::<u64>() as f64 / count;
    let (mut products, mut squares) = (0.0, 0.0);
    for (time, value) in half.iter().enumerate() {
        let time = time as f64 - mean_time;
        products += time * (*value as f64 - mean);
        squares += time * time;
    }
    let growth = if squares > 0.0 { products / squares * count } else { 0.0 };
    println!("growth in the second half: {growth:.0} of at most {bound}");
    growth < bound as f64
}

/// The resident memory of the process `pid` in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.ok_or("no resident memory")?.trim().trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? * 1024)
}
