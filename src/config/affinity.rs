//! `[affinity]`: how sessions find their upstream, and how long they wait for it.

use std::time::Duration;

use super::{
    Affinity,
    load::{DAY, is_empty_array, set},
    reader::{Reader, Schema, Section},
    values::{duration, integer, show_duration, text},
};
use crate::policy::SessionSource;

pub(super) const SCHEMA: Schema = Schema {
    name: "[affinity]",
    prefix: "affinity.",
    fields: &["sources", "idle", "capacity", "wait", "reread_rate", "wait_max"],
};

/// Reads the table `affinity`; what it leaves out keeps its value in `affinity`.
pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>, affinity: &mut Affinity) {
    let section = reader.section(root, "affinity", &SCHEMA);
    read_sources(reader, &section, &mut affinity.sources);
    let idle = Duration::from_secs(1)..=30 * DAY;
    set(
        &mut affinity.idle,
        reader.read(&section, "idle", |value| duration(value, idle)),
    );
    let capacity = reader.read(&section, "capacity", |value| integer(value, 1..=100_000_000));
    set(
        &mut affinity.capacity,
        capacity.and_then(|capacity| usize::try_from(capacity).ok()),
    );
    read_patience(reader, &section, affinity);
}

fn read_sources(reader: &mut Reader<'_>, section: &Section<'_>, sources: &mut Vec<SessionSource>) {
    let source = |value| {
        text(value)?
            .parse::<SessionSource>()
            .map_err(|unknown| format!("has an unknown source: {unknown}"))
    };
    let Some(written) = reader.list(section, "sources", false, source) else {
        return;
    };
    sources.clear();
    for (place, source) in written {
        if sources.contains(&source) {
            reader
                .notes
                .error(place, format!("sources has \"{source}\" twice; keep the first"));
        } else {
            sources.push(source);
        }
    }
    if let Some(value) = section.get("sources")
        && is_empty_array(value.get_ref())
    {
        reader.error(
            value,
            "sources must have at least one; remove the field for the default order",
        );
    }
}

fn read_patience(reader: &mut Reader<'_>, section: &Section<'_>, affinity: &mut Affinity) {
    let mut read = |field| reader.read(section, field, |value| duration(value, Duration::ZERO..=DAY));
    let (wait, wait_max) = (read("wait"), read("wait_max"));
    set(&mut affinity.wait, wait);
    set(&mut affinity.wait_max, wait_max);
    let rate = reader.read(section, "reread_rate", |value| integer(value, 1..=10_000_000));
    set(
        &mut affinity.reread_rate,
        rate.and_then(|rate| u32::try_from(rate).ok()),
    );
    let written = |field, read: Option<Duration>| section.get(field).filter(|_| read.is_some());
    if let Some(value) = written("wait", wait).or(written("wait_max", wait_max))
        && affinity.wait > affinity.wait_max
    {
        let (wait, most) = (show_duration(affinity.wait), show_duration(affinity.wait_max));
        let message = format!("wait ({wait}) must not be longer than wait_max ({most}); lower it, or raise wait_max");
        reader.error(value, message);
    }
}
