//! Reads `[affinity]`: the choice of a session's upstream, and the time that the session waits for it.

use super::{
    document::DocumentReader,
    fields::{affinity, root},
    reader::Section,
    settings::AffinitySettings,
    values::show_duration,
};
use crate::{body_path::BodyPaths, policy::SessionSource};

/// Reads the table `affinity` into `settings`. A setting without a valid value keeps its default.
pub(super) fn read(reader: &mut DocumentReader<'_>, root: &Section<'_>, settings: &mut AffinitySettings) {
    let section = reader.section(root, &root::AFFINITY);
    read_sources(reader, &section, &mut settings.sources);
    reader.update(&section, &affinity::IDLE, &mut settings.idle);
    if let Some(capacity) = reader.read(&section, &affinity::CAPACITY) {
        settings.capacity = usize::try_from(capacity).expect("the range of capacity fits an address space of 32 bits");
    }
    read_waits(reader, &section, settings);
}

fn read_sources(reader: &mut DocumentReader<'_>, section: &Section<'_>, sources: &mut Vec<SessionSource>) {
    let source = |text: &str| {
        text.parse::<SessionSource>()
            .map_err(|unknown| format!("has an unknown source: {unknown}"))
    };
    let Some(written) = reader.list(section, &affinity::SOURCES, source) else {
        return;
    };
    sources.clear();
    for (location, source) in written {
        if sources.contains(&source) {
            let message = format!("sources has \"{source}\" twice; keep the first");
            reader.problems.error(location, message);
        } else {
            sources.push(source);
        }
    }
    if let Some(value) = section.get(&affinity::SOURCES)
        && sources.iter().filter_map(SessionSource::body_path).count() > BodyPaths::MAX
    {
        let most = BodyPaths::MAX;
        reader.error(
            value,
            format!("sources must have at most {most} paths in the body; remove some"),
        );
    }
    if let Some(value) = section.get(&affinity::SOURCES)
        && value.get_ref().as_array().is_some_and(|items| items.is_empty())
    {
        reader.error(
            value,
            "sources must have at least one element; remove the field for the default order",
        );
    }
}

fn read_waits(reader: &mut DocumentReader<'_>, section: &Section<'_>, settings: &mut AffinitySettings) {
    let wait = reader.read(section, &affinity::WAIT);
    let wait_max = reader.read(section, &affinity::WAIT_MAX);
    settings.wait = wait.unwrap_or(settings.wait);
    settings.wait_max = wait_max.unwrap_or(settings.wait_max);
    reader.update(section, &affinity::REREAD_RATE, &mut settings.reread_rate);
    let written_wait = section.get(&affinity::WAIT).filter(|_| wait.is_some());
    let written_wait_max = section.get(&affinity::WAIT_MAX).filter(|_| wait_max.is_some());
    if let Some(value) = written_wait.or(written_wait_max)
        && settings.wait > settings.wait_max
    {
        let (wait, most) = (show_duration(settings.wait), show_duration(settings.wait_max));
        let message = format!("wait ({wait}) must not be longer than wait_max ({most}); lower it, or raise wait_max");
        reader.error(value, message);
    }
}
