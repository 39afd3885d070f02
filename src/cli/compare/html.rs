//! A comparison as a page: one file, which needs no network and no script.
//!
//! What may live in this file: the order of what is on the page. The sentences are in [`sentences`]; what the charts show
//! in [`charts`] and [`mod@overview`], and how they are drawn in [`svg`]; figures as people read them in [`figures`]; the tables
//! in [`tables`]; the image for README in [`drawing`](mod@drawing); colours and sizes in the two style sheets beside them.
//!
//! Everything comes from the record, and every text of it goes through [`escape`]: names of models and reasons are
//! text from a command line. The page's own policy forbids it to load or to run anything.

mod charts;
mod drawing;
mod figures;
mod overview;
mod sentences;
mod svg;
mod tables;

use super::record::{Figure, Record, Scenario};
use crate::cli::units::{grouped, plural};
use charts::{by_percentile, over_connections, sizes, telling_cells};
pub(super) use drawing::drawing;
use figures::memory;
use sentences::{Sentence, Tone};
use std::fmt::Write;
use svg::{Chart, Svg};

/// What a browser is to know first, the policy among it: load nothing, run nothing.
const HEAD: &str = include_str!("html/head.html");
const STYLE: &str = include_str!("html/style.css");
const DRAWING_STYLE: &str = include_str!("html/drawing.css");

/// A chart on the page, in the units of its drawing: about the pixels of a telephone.
const CHART: (f64, f64) = (340.0, 250.0);

/// A text that can be nothing but text, in an element or in an attribute's quotes. What neither HTML nor XML can hold
/// becomes the sign for that.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The page.
pub(super) fn page(record: &Record) -> String {
    let mut out = String::with_capacity(1 << 18);
    // Writing to a string cannot fail.
    let _ = whole(&mut out, record);
    out
}

fn whole(out: &mut String, record: &Record) -> std::fmt::Result {
    let title = title(record);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n{HEAD}<title>{}</title>\n<style>\n{STYLE}{DRAWING_STYLE}</style>\n\
         </head>\n<body>\n<main>\n",
        escape(&title)
    )?;
    head(out, record, &title)?;
    in_short(out, record)?;
    overview(out, record)?;
    curves(out, record)?;
    percentiles(out, record)?;
    memory_and_calls(out, record)?;
    what_came_of_it(out, record)?;
    left_out(out, record)?;
    tables::all(out, record)?;
    how(out, record)?;
    out.write_str("</main>\n</body>\n</html>\n")
}

/// `reactor against threads and asyncio`.
fn title(record: &Record) -> String {
    let names: Vec<&str> = record
        .models
        .iter()
        .map(|model| model.name.as_str())
        .collect();
    match &names[..] {
        [] => "Echo servers compared".to_owned(),
        [only] => format!("{only}, measured"),
        [first, others @ .., last] if !others.is_empty() => {
            format!("{first} against {} and {last}", others.join(", "))
        }
        [first, .., last] => format!("{first} against {last}"),
    }
}

fn head(out: &mut String, record: &Record, title: &str) -> std::fmt::Result {
    let machine = &record.machine;
    writeln!(
        out,
        "<p class=\"soft\">echo-reactor compare {}, {}</p>\n<h1>{}</h1>\n<p>{}</p>",
        escape(&record.version),
        date(record.started_unix),
        escape(title),
        escape(&format!(
            "The same load on each, as processes of their own, in {}, each in an order of its own; every byte that came back \
             was verified. {} of {}, {} of memory, Linux {}.",
            plural(record.rounds, "round"),
            plural(machine.processors, "processor"),
            machine.processor,
            memory(machine.memory_bytes as f64),
            machine.kernel
        ))
    )?;
    if record.interrupted {
        writeln!(
            out,
            "<p><b>Ended before its time:</b> this is what there was by then.</p>"
        )?;
    }
    if let Some(warning) = sentences::warning(record) {
        writeln!(
            out,
            "<p class=\"warning\"><b>To be doubted:</b> {}</p>",
            escape(&warning)
        )?;
    }
    out.write_str("<ul class=\"tiles\">")?;
    for (figure, text) in sentences::headlines(record) {
        write!(
            out,
            "<li><b>{}</b><span>{}</span></li>",
            escape(&figure),
            escape(&text)
        )?;
    }
    out.write_str("</ul>\n")?;
    out.write_str(
        "<nav aria-label=\"On this page\"><a href=\"#overview\">At a glance</a> <a href=\"#curves\">Curves</a> \
         <a href=\"#percentiles\">Percentiles</a> <a href=\"#memory\">Memory</a> <a href=\"#said\">In words</a> \
         <a href=\"#left\">Left out</a> <a href=\"#tables\">Tables</a> <a href=\"#how\">Machine and command</a></nav>\n",
    )
}

/// What most people come for: a few sentences, whichever way they point. All of them are further down.
fn in_short(out: &mut String, record: &Record) -> std::fmt::Result {
    match sentences::in_short(record) {
        nothing if nothing.is_empty() => Ok(()),
        some => list(out, &some),
    }
}

fn what_came_of_it(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str("<h2 id=\"said\">What the figures say</h2>\n")?;
    if let Some(first) = record.models.first() {
        let text = format!(
            "Seen from {}: ahead of the other one, behind it, or level with it, which includes whatever is within the \
             noise.",
            first.name
        );
        writeln!(out, "<p class=\"soft\">{}</p>", escape(&text))?;
    }
    for (place, model) in record.models.iter().enumerate().skip(1) {
        let said = sentences::about(record, place);
        let heading = format!("{} against {}", record.models[0].name, model.name);
        writeln!(out, "<h3>{}</h3>", escape(&heading))?;
        match said.is_empty() {
            true => writeln!(
                out,
                "<p>It took part in no load together with the first.</p>"
            )?,
            false => list(out, &said)?,
        }
    }
    Ok(())
}

fn list(out: &mut String, said: &[Sentence]) -> std::fmt::Result {
    out.write_str("<ul class=\"said\">")?;
    for sentence in said {
        let (class, word) = match sentence.tone {
            Tone::Ahead => ("ahead", "▲ ahead"),
            Tone::Behind => ("behind", "▼ behind"),
            Tone::Level => ("level", "≈ level"),
            Tone::Missing => ("missing", "○ note"),
        };
        write!(
            out,
            "<li class=\"{class}\"><b>{word}</b><span>{}</span></li>",
            escape(&sentence.text)
        )?;
    }
    out.write_str("</ul>\n")
}

/// The legend: each subject, in the look that it has in the charts; `from` leaves out the first, where it is the
/// reference.
fn legend(out: &mut String, record: &Record, from: usize) -> std::fmt::Result {
    out.write_str("<ul class=\"legend\">")?;
    for (look, model) in record.models.iter().enumerate().skip(from) {
        let mut swatch = Svg::default();
        swatch.swatch(look, (2.0, 7.0));
        write!(
            out,
            "<li><svg viewBox=\"0 0 30 14\" aria-hidden=\"true\">{}</svg><span>{}</span></li>",
            swatch.0,
            escape(&model.name)
        )?;
    }
    out.write_str("</ul>\n")
}

fn overview(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str("<h2 id=\"overview\">At a glance</h2>\n")?;
    let (wide, height) = (620.0, 0.0);
    let Some((svg, tall, description)) = overview::draw(record, wide) else {
        return out.write_str(
            "<p>Nothing here can be called ahead or behind: that takes three rounds in which two models took part.</p>\n",
        );
    };
    let first = record
        .models
        .first()
        .map_or("", |model| model.name.as_str());
    let title = format!("Echoes per second, as a multiple of those of {first}");
    writeln!(
        out,
        "<p>{} Left of 1× is slower, right of it faster; the bar is the confidence interval, and one that crosses the line \
         tells of no difference. Rows are connections × bytes of a message.</p>",
        escape(&format!("{title}."))
    )?;
    legend(out, record, 1)?;
    let image = svg::image(
        "overview-chart",
        &title,
        &description,
        (wide, tall.max(height)),
        &svg,
    );
    // A telephone gets a drawing of its own width: one that is scaled down to half cannot be read.
    let narrow = overview::draw(record, 340.0).map(|(svg, tall, description)| {
        svg::image("overview-small", &title, &description, (340.0, tall), &svg)
    });
    writeln!(
        out,
        "<figure class=\"narrow\"><div class=\"wide\">{image}</div><div class=\"small\">{}</div></figure>",
        narrow.unwrap_or_default()
    )
}

fn figure(out: &mut String, id: &str, chart: &Chart) -> std::fmt::Result {
    write!(out, "<figure>{}", chart.inline(id, CHART))?;
    if !chart.missing.is_empty() {
        write!(
            out,
            "<figcaption>{}.</figcaption>",
            escape(&chart.missing.join("; "))
        )?;
    }
    out.write_str("</figure>\n")
}

fn curves(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str("<h2 id=\"curves\">Over the number of connections</h2>\n")?;
    writeln!(
        out,
        "<p>{} A point is the median of the rounds, and the bar behind it goes from the least to the most.</p>",
        escape(figures::load_in_words(Scenario::RequestResponse))
    )?;
    legend(out, record, 0)?;
    for (figure_of, heading, name) in [
        (
            Figure::Throughput,
            "Throughput: more is better",
            "throughput",
        ),
        (
            Figure::P99,
            "Latency, the 99th percentile: less is better",
            "p99",
        ),
    ] {
        writeln!(out, "<h3>{heading}</h3>\n<div class=\"charts\">")?;
        for size in sizes(record) {
            figure(
                out,
                &format!("{name}-{size}"),
                &over_connections(record, size, figure_of),
            )?;
        }
        out.write_str("</div>\n")?;
    }
    Ok(())
}

fn percentiles(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str(
        "<h2 id=\"percentiles\">Latency by percentile</h2>\n<p>Each step to the right is a tenth of what was left: how long \
         it took until 90 of 100 answers had come, 99 of 100, 999 of 1,000.</p>\n",
    )?;
    let cells = telling_cells(record);
    if cells.is_empty() {
        return out.write_str("<p>No latencies were recorded.</p>\n");
    }
    legend(out, record, 0)?;
    out.write_str("<div class=\"charts\">\n")?;
    for cell in cells {
        figure(
            out,
            &format!("percentiles-{}", cell.connections),
            &by_percentile(record, cell),
        )?;
    }
    out.write_str("</div>\n")
}

fn memory_and_calls(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str(
        "<h2 id=\"memory\">Memory, and system calls</h2>\n<p>Resident memory of the server's process; what the kernel keeps \
         for each socket comes on top, and is the same for all.</p>\n",
    )?;
    legend(out, record, 0)?;
    out.write_str("<div class=\"charts\">\n")?;
    for (place, chart) in charts::memory_charts(record).iter().enumerate() {
        figure(out, &format!("memory-{place}"), chart)?;
    }
    out.write_str("</div>\n")?;
    let Some((svg, tall, description)) = charts::system_calls(record, CHART.0) else {
        return Ok(());
    };
    let image = svg::image(
        "calls",
        "System calls of one echo",
        &description,
        (CHART.0, tall),
        &svg,
    );
    writeln!(
        out,
        "<h3>System calls of one echo</h3>\n<figure class=\"one-chart\">{image}<figcaption>Counted by strace, in a run of \
         its own.</figcaption></figure>"
    )
}

fn left_out(out: &mut String, record: &Record) -> std::fmt::Result {
    out.write_str("<h2 id=\"left\">What was left out, and what to doubt</h2>\n")?;
    match sentences::missing(record) {
        nothing if nothing.is_empty() => out.write_str("<p>Nothing.</p>\n"),
        some => list(out, &some),
    }
}

fn how(out: &mut String, record: &Record) -> std::fmt::Result {
    let machine = &record.machine;
    out.write_str("<h2 id=\"how\">Machine and command</h2>\n<dl>")?;
    let took = figures::number((record.seconds / 60.0 * 10.0).round() / 10.0);
    for (name, value) in [
        ("machine", machine.name.clone()),
        ("kernel", format!("Linux {}", machine.kernel)),
        (
            "processors",
            format!("{} × {}", machine.processors, machine.processor),
        ),
        ("memory", memory(machine.memory_bytes as f64)),
        (
            "descriptors",
            format!("{} for a process, at most", grouped(machine.descriptors)),
        ),
        (
            "measured",
            format!("{}, for {took} min", date(record.started_unix)),
        ),
        (
            "rounds",
            format!(
                "{} of {} s each, seed {}",
                record.rounds,
                figures::number(record.window_seconds),
                record.seed
            ),
        ),
    ] {
        write!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value))?;
    }
    out.write_str("</dl>\n")?;
    let command: Vec<String> = record.command.iter().map(|word| quoted(word)).collect();
    writeln!(
        out,
        "<pre tabindex=\"0\"><code>{}</code></pre>",
        escape(&command.join(" "))
    )?;
    out.write_str("<h3>The servers</h3>\n<dl>")?;
    for model in &record.models {
        let command = match model.command.as_str() {
            "" => String::new(),
            command => format!(": <code>{}</code>", escape(command)),
        };
        write!(
            out,
            "<dt>{}</dt><dd>{}{command}</dd>",
            escape(&model.name),
            escape(&model.note)
        )?;
    }
    out.write_str("</dl>\n")
}

/// A word of a command line, so that a shell would read it as one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Seconds since 1970 as a day and a time, UTC. (Days to dates after Howard Hinnant's `civil_from_days`; a crate for
/// calendars would be the largest of all for one line.)
fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        seconds / 3600,
        seconds / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::drawing::schemes;
    use super::*;
    use crate::cli::compare::record::tests::sample;

    /// Every element is closed, in order, and every attribute has its quotes: what XML asks, and HTML then is content with.
    #[track_caller]
    fn is_well_formed(text: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = text.trim_start_matches("<!DOCTYPE html>");
        while let Some(start) = rest.find('<') {
            assert!(
                !rest[..start].contains('>'),
                "a lonely > in {:?}",
                &rest[..start]
            );
            let end = rest[start..].find('>').unwrap() + start;
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(
                    open.pop(),
                    Some(name),
                    "before {:?}",
                    &rest[..rest.len().min(80)]
                );
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            let name = tag.split([' ', '/']).next().unwrap();
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "<{tag}>");
            if !tag.ends_with('/') {
                open.push(name);
            }
            if name == "style" {
                let end = rest.find("</style>").unwrap();
                assert!(!rest[..end].contains('<'));
                rest = &rest[end..];
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    /// It loads nothing from anywhere, and runs nothing.
    #[track_caller]
    fn stands_alone(text: &str) {
        let text = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for foreign in [
            "://", "<script", "<link", "<img", "src=", "@import", "url(", "<iframe", " on",
        ] {
            let found = text.match_indices(foreign).find(|(at, _)| {
                // " on" is a word in a text, and an attribute in a tag.
                foreign != " on" || text[..*at].rfind('<') > text[..*at].rfind('>')
            });
            assert!(
                found.is_none(),
                "{foreign} in {:?}",
                &text[found.unwrap().0..][..60]
            );
        }
    }

    #[test]
    fn the_page_stands_alone_and_has_every_chart_and_every_model() {
        let record = sample();
        let page = page(&record);
        is_well_formed(&page);
        stands_alone(&page);
        let charts: Vec<String> = (sizes(&record).iter())
            .flat_map(|size| [format!("throughput-{size}"), format!("p99-{size}")])
            .chain(
                [
                    "memory-0",
                    "memory-1",
                    "calls",
                    "overview-chart",
                    "overview-small",
                ]
                .map(str::to_owned),
            )
            .chain(
                telling_cells(&record)
                    .iter()
                    .map(|cell| format!("percentiles-{}", cell.connections)),
            )
            .collect();
        assert!(charts.len() > 9, "{charts:?}");
        for chart in charts {
            assert_eq!(
                page.matches(&format!("<title id=\"{chart}-t\">")).count(),
                1,
                "{chart}"
            );
            assert_eq!(
                page.matches(&format!("<desc id=\"{chart}-d\">")).count(),
                1,
                "{chart}"
            );
        }
        for (look, model) in record.models.iter().enumerate() {
            let row = format!("<th scope=\"row\" class=\"name\">{}</th>", model.name);
            assert_eq!(
                page.matches(&row).count(),
                record.cells.len(),
                "{}",
                model.name
            );
            assert!(
                page.contains(&format!("<title>{}, ", model.name)),
                "{} has no point",
                model.name
            );
            assert!(page.contains(&format!("line m{look}")));
        }
        assert!(
            page.contains("--against-command &#39;python3 echo.py {port}&#39;"),
            "the exact command"
        );
    }

    #[test]
    fn what_others_have_typed_stays_text() {
        let evil = "<script>alert('x')</script>\" onload=\"x\" & \u{1b}[31m\0\n]]>";
        let mut record = sample();
        for model in &mut record.models {
            model.name.push_str(evil);
            model.command.push_str(evil);
            model.note.push_str(evil);
        }
        record.command.push(evil.to_owned());
        record.notes.push(evil.to_owned());
        record.machine.name.push_str(evil);
        record.machine.kernel.push_str(evil);
        record.machine.processor.push_str(evil);
        record.version.push_str(evil);
        for entry in record.cells.iter_mut().flat_map(|cell| &mut cell.entries) {
            entry.left_out = Some(evil.to_owned());
            entry
                .samples
                .iter_mut()
                .for_each(|sample| sample.invalid.push(evil.to_owned()));
            if let Some(calls) = &mut entry.system_calls {
                calls.names.insert(0, (evil.to_owned(), 1.0));
            }
        }
        for text in [page(&record), drawing(&record)] {
            is_well_formed(&text);
            stands_alone(&text);
            assert!(text.contains("&lt;script&gt;") && !text.contains(['\u{1b}', '\0']));
        }
    }

    #[test]
    fn a_record_with_next_to_nothing_in_it_is_a_page_too() {
        let mut record = sample();
        record.interrupted = true;
        for entry in record.cells.iter_mut().flat_map(|cell| &mut cell.entries) {
            *entry = Default::default();
        }
        is_well_formed(&page(&record));
        is_well_formed(&drawing(&record));
        record.cells.clear();
        is_well_formed(&page(&record));
        record.models.truncate(1);
        is_well_formed(&drawing(&record));
        record.models.clear();
        let page = page(&record);
        is_well_formed(&page);
        assert!(page.contains("Ended before its time"));
    }

    #[test]
    fn the_drawing_stands_alone_and_knows_both_schemes() {
        let drawing = drawing(&sample());
        is_well_formed(&drawing);
        stands_alone(&drawing);
        let (light, dark) = schemes();
        assert!(
            light.contains("--c0: #0a63b0") && dark.contains("--c0: #62b2f5"),
            "{light} {dark}"
        );
        for model in sample().models {
            assert!(drawing.contains(&format!(">{}</text>", model.name)));
        }
    }

    /// What WCAG 2 calls the contrast ratio of two colours.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |colour: &str| {
            let part = |at: usize| {
                let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.04045 {
                    value / 12.92
                } else {
                    ((value + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_colour_stands_out_from_its_ground_in_both_schemes() {
        for scheme in [schemes().0, schemes().1] {
            let colour = |name: &str| {
                let (_, rest) = scheme.split_once(&format!("--{name}: ")).unwrap();
                &rest[..7]
            };
            for name in [
                "ink", "soft", "good", "bad", "c0", "c1", "c2", "c3", "c4", "c5",
            ] {
                for ground in ["page", "card"] {
                    let contrast = contrast(colour(name), colour(ground));
                    assert!(contrast >= 4.5, "{name} on {ground}: {contrast:.2}");
                }
            }
        }
    }

    #[test]
    fn dates_and_words_of_a_shell() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_764_040_000), "2025-11-25 03:06 UTC");
        assert_eq!(
            (quoted("a b"), quoted("it's"), quoted("")),
            ("'a b'".into(), "'it'\\''s'".into(), "''".into())
        );
    }
}
