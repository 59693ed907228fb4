//! What a series shows, as a picture: CPU of the node a message, and the tail of acknowledgements.

use antiphon_loadgen::report::plots::{self, Colour, Line, Panel};

use super::{CellResult, Figures, Series};

/// The picture; cells without figures are not in it.
pub(super) fn draw(series: Series, results: &[CellResult]) -> anyhow::Result<String> {
    let (title, over) = match series {
        Series::Members => ("A large group by its members", "members"),
        Series::Online => ("A large group by its connected members", "connected members"),
    };
    let line = |name: &'static str, colour: Colour, value: fn(&Figures) -> Option<f64>| Line {
        name,
        colour,
        points: points(series, results, value),
    };
    let cpu = [line("CPU a message", Colour::First, |figures| Some(figures.cpu_ms_per_message))];
    let latency = [
        line("send → ack, p99", Colour::First, |figures| Some(figures.ack_p99_ms)),
        line("send → deliver, p99", Colour::Second, |figures| figures.deliver_p99_ms),
    ];
    let panels =
        [panel(&format!("CPU of the node over {over}"), &cpu)?, panel(&format!("Latency over {over}"), &latency)?];
    Ok(plots::picture(title, &panels))
}

fn panel(caption: &str, lines: &[Line]) -> anyhow::Result<Panel> {
    let legend = lines.iter().map(|line| (line.name, line.colour)).collect();
    Ok(Panel { caption: caption.to_owned(), legend, svg: plots::over_counts(lines, "ms")? })
}

fn points(series: Series, results: &[CellResult], value: fn(&Figures) -> Option<f64>) -> Vec<(f64, f64)> {
    let cells = results.iter().filter(|result| result.cell.series.contains(&series));
    let mut points: Vec<(f64, f64)> = cells
        .filter_map(|result| {
            let place = match series {
                Series::Members => result.cell.members,
                Series::Online => result.cell.online,
            };
            Some((f64::from(place), value(&result.figures?)?))
        })
        .collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::large::Cell;

    #[test]
    fn cells_stand_where_they_belong() {
        let result = |series: &[Series], members, online, cpu: Option<f64>| CellResult {
            cell: Cell { series: series.to_vec(), members, online },
            figures: cpu.map(|cpu_ms_per_message| Figures {
                cpu_ms_per_message,
                ack_p99_ms: 1.0,
                deliver_p99_ms: Some(2.0),
                hint_p99_ms: None,
                chat_deliver_p99_factor: None,
            }),
            because: None,
            report: None,
        };
        let results = [
            result(&[Series::Online], 200, 50, Some(9.0)),
            result(&[Series::Members, Series::Online], 200, 10, Some(5.0)),
            result(&[Series::Members], 100, 10, Some(4.0)),
            result(&[Series::Members], 150, 10, None),
        ];
        let cpu = |series| points(series, &results, |figures| Some(figures.cpu_ms_per_message));
        assert_eq!(cpu(Series::Members), [(100.0, 4.0), (200.0, 5.0)]);
        assert_eq!(cpu(Series::Online), [(10.0, 5.0), (50.0, 9.0)]);
        assert!(draw(Series::Members, &results).unwrap().contains("CPU of the node over members"));
        assert!(draw(Series::Online, &[]).unwrap().starts_with("<svg"));
    }
}
