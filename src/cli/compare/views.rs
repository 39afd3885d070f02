//! The comparison as a text, as a page, and as a drawing. The page is one file and needs no network and no script.
//!
//! What is no plain part of the record is prepared here, once; the rest is in the templates `text.txt`, `page.html` and
//! `drawing.svg`, which minijinja fills in. In the last two it escapes every text, since names of models and reasons come from
//! a command line; the page's own policy forbids it to load or to run anything.

use super::charts::{self, STYLE};
use super::record::{Cell, Figure, Load, Ratio, Record, Spread};
use crate::cli::bench::time::bytes;
use crate::cli::output::printable;
use crate::cli::page;
use minijinja::value::Serde;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The report for a terminal.
///
/// # Errors
/// The template is wrong, for the reason that is returned.
pub(super) fn text(record: &Record) -> Result<String, String> {
    render("text.txt", include_str!("text.txt"), record, &Value::Null)
}

/// The whole page.
///
/// # Errors
/// A chart cannot be drawn, or the template is wrong, for the reason that is returned.
pub(super) fn page(record: &Record) -> Result<String, String> {
    let page = json!({
        "style": STYLE,
        "date": page::date(record.started_unix),
        "command": page::command(&record.command),
        "smallest": charts::by_size(record).first(),
        "ratios": charts::ratios(record)?,
        "curves": charts::curves(record)?,
        "percentiles": charts::percentiles(record)?,
    });
    render("page.html", include_str!("page.html"), record, &page)
}

/// Throughput and p99 over connections in one image, for README: good on a light and on a dark page, since it brings its
/// own ground.
///
/// # Errors
/// As those of [`page()`].
pub(super) fn drawing(record: &Record) -> Result<String, String> {
    let page = json!({"style": STYLE, "curves": charts::curves(record)?});
    // By this name it is escaped as HTML is.
    render("drawing.xml", include_str!("drawing.svg"), record, &page)
}

/// Fills in a template; it is HTML or XML if its name says so.
fn render(name: &str, source: &str, record: &Record, page: &Value) -> Result<String, String> {
    let group = |cells: &Vec<&Cell>| {
        let Load { scenario, size, .. } = cells[0].load;
        let title = format!("{}, {} a request", scenario.title(), bytes(size as f64));
        json!({"title": title, "cells": cells})
    };
    let view = json!({
        "record": record,
        "groups": record.groups().iter().map(group).collect::<Vec<_>>(),
        "failures": record.failures(),
        "titles": BTreeMap::from(Figure::TITLES),
        "page": page,
    });
    let mut environment = page::environment()?;
    environment.add_filter("bytes", bytes);
    environment.add_filter("figure", |value: f64, figure: Serde<Figure>| {
        figure.write(value)
    });
    environment.add_filter("median", median);
    environment.add_filter("told", |ratio: Serde<Ratio>| ratio.to_string());
    let rendered = environment.render_named_str(name, source, Serde(&view));
    rendered
        .map(|text| printable(&text))
        .map_err(|error| error.to_string())
}

/// The middle of a figure with its unit, or a dash.
fn median(spread: Option<Serde<Spread>>, figure: Serde<Figure>) -> String {
    spread.map_or("-".to_owned(), |spread| figure.write(spread.median))
}

#[cfg(test)]
mod tests {
    use super::super::record::Entry;
    use super::super::record::tests::sample;
    use super::*;

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
                assert_eq!(open.pop(), Some(name), "before {:?}", rest.get(..80));
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            let name = tag.split([' ', '/', '\n']).next().unwrap();
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
            "://", "<script", "<link", "<img", "src=", "@import", "url(", "<iframe",
        ] {
            assert!(!text.contains(foreign), "{foreign}");
        }
        let is_handler = |(at, _): &(usize, &str)| {
            let name = text[at + 1..]
                .split(|c: char| !c.is_ascii_alphabetic())
                .next();
            let is_in_tag = text[..*at].rfind('<') > text[..*at].rfind('>');
            is_in_tag && text[at + 1 + name.unwrap().len()..].starts_with("=\"")
        };
        assert_eq!(text.match_indices(" on").find(is_handler), None);
    }

    #[test]
    fn the_table_is_as_it_was() {
        let text = text(&sample()).unwrap();
        let expected = include_str!("../../../tests/fixtures/compare.txt");
        for (line, expected) in text.lines().zip(expected.lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(text.lines().count(), expected.lines().count());
    }

    #[test]
    fn a_star_tells_of_rounds_that_were_not_valid() {
        let mut record = sample();
        let entry = &mut record.cells[0].entries[1];
        for sample in &mut entry.samples {
            sample
                .not_valid_because
                .push("the generator was late".to_owned());
        }
        entry.left_out = Some("it ended in round 3".to_owned());
        let text = text(&record).unwrap();
        assert!(text.contains("threads            40,743*±  1 %"), "{text}");
        assert!(text.contains("\n                             and then: it ended in round 3\n"));
        assert!(text.contains("\n* in most rounds the measurement was not valid"));
    }

    #[test]
    fn the_page_stands_alone_and_has_every_chart_and_every_model() {
        let record = sample();
        let page = page(&record).unwrap();
        is_well_formed(&page);
        stands_alone(&page);
        assert_eq!(page.matches("<svg ").count(), 1 + 2 * 3 + 3);
        assert_eq!(
            page.matches("<svg ").count(),
            page.matches("role=\"img\"").count()
        );
        for model in &record.models {
            let row = format!("<th scope=\"row\" class=\"name\">{}</th>", model.name);
            assert_eq!(page.matches(&row).count(), record.cells.len(), "{row}");
        }
        let command = "--against-command &#x27;python3 echo.py {port}&#x27;";
        assert!(page.contains(command), "the exact command");
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
            entry.model.push_str(evil);
        }
        for text in [page(&record).unwrap(), drawing(&record).unwrap()] {
            is_well_formed(&text);
            stands_alone(&text);
            assert!(text.contains("&lt;script&gt;") && !text.contains(['\u{1b}', '\0']));
        }
    }

    #[test]
    fn a_record_with_next_to_nothing_in_it_is_a_page_too() {
        let mut record = sample();
        record.interrupted = true;
        let check = |record: &Record| {
            is_well_formed(&page(record).unwrap());
            is_well_formed(&drawing(record).unwrap());
            text(record).unwrap();
        };
        for entry in record.cells.iter_mut().flat_map(|cell| &mut cell.entries) {
            *entry = Entry::default();
        }
        check(&record);
        record.cells.clear();
        check(&record);
        record.models.truncate(1);
        check(&record);
        record.models.clear();
        check(&record);
        assert!(page(&record).unwrap().contains("Ended before its time"));
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
        let (light, dark) = STYLE.split_once("@media").unwrap();
        for scheme in [light, dark] {
            let colour = |name: &str| {
                let (_, rest) = scheme.split_once(&format!("--{name}: ")).unwrap();
                &rest[..7]
            };
            for name in ["ink", "soft", "c0", "c1", "c2", "c3", "c4", "c5"] {
                for ground in ["page", "card"] {
                    let contrast = contrast(colour(name), colour(ground));
                    assert!(contrast >= 4.5, "{name} on {ground}: {contrast:.2}");
                }
            }
        }
    }

    #[test]
    fn every_colour_of_a_drawing_changes_with_the_scheme() {
        let drawing = drawing(&sample()).unwrap();
        let (_, drawn) = drawing.split_once("</style>").unwrap();
        for paint in ["fill", "stroke"] {
            let start = format!(" {paint}=\"");
            for color in drawn
                .split(&start)
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap())
            {
                let rule = format!("svg [{paint}=\"{color}\"]");
                assert!(color == "none" || STYLE.contains(&rule), "{rule}");
            }
        }
    }
}
