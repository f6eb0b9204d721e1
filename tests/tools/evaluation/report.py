"""What an evaluation found, for machines (results.json) and for people (a table in Markdown, a page in HTML).

Everything is made of one value, `results`; FIELDS says what is in it, and goes into the file with it.
"""

import html
from urllib.parse import quote

FIELDS = {
    "version": "of this format",
    "made_at": "when, RFC 3339 UTC",
    "seconds": "what all of it took: processing, scoring, drawing",
    "roomscribe": "version of the program under test",
    "models": "what the records name, as in a record: role, id, file, sha256",
    "scorers": "versions",
    "scorers_agree": "whether both scorers say the same DER within rounding, wherever both do; null if md-eval.pl failed",
    "normalizer": "what meeteval did to the words of both sides before it compared them",
    "fields": "this list",
    "recordings[]": "one each, in the order of their names",
    "pooled[]": "one for each folder, if there are several, and one for all, whose name is `all`",
    "name": "a recording's path below the folder that all share, without the ending; or a folder's",
    "file_id": "the recording's in scored/",
    "status": "done or failed; a record without speakers has failed, unless none were asked for",
    "problem": "why there are no words or no speakers; null if there are",
    "duration_s": "length of the recording; 0 if it could not be read",
    "processing_s": "wall time of `roomscribe process`, its start and its models' included",
    "real_time_factor": "processing_s / duration_s; null without duration",
    "speaker_count": "people with a turn in what is scored; null without reference",
    "speaker_count.found": "in our RTTM; Unknown Speaker is nobody",
    "speaker_count.true": "in the reference",
    "speaker_count.error": "found - true",
    "speaker_count.right": "pooled: how many recordings have as many speakers found as true",
    "speaker_count.mean_absolute_error": "pooled: mean of the errors without their sign",
    "speakers": "by pyannote.metrics, collar 0, overlap counted; null without reference or without result",
    "speakers.reference_s": "reference speech: what each speaker spoke, added up; what the rates below are shares of",
    "speakers.missed_s": "reference speech where we have nobody, or one too few",
    "speakers.false_alarm_s": "where we have somebody, or one too many",
    "speakers.confusion_s": "where we have somebody else",
    "speakers.missed": "missed_s / reference_s",
    "speakers.false_alarm": "false_alarm_s / reference_s",
    "speakers.confusion": "confusion_s / reference_s; pooled: all confusion over all reference speech",
    "speakers.der": "diarization error rate: the sum of the three",
    "speakers.jer": "Jaccard error rate; pooled: the mean over all reference speakers",
    "speakers.md_eval_der": "DER by NIST md-eval.pl on the same RTTM and UEM",
    "speakers.mapping": "our speakers, and whom each stands for",
    "words": "by meeteval; null without reference or without result",
    "words.reference_words": "how many",
    "words.wer": "word error rate, speakers ignored, by order of beginning",
    "words.cpwer": "concatenated minimum-permutation word error rate: a word with the wrong speaker is two errors",
    "words.orcwer": "optimal reference combination word error rate (greedy): speakers ignored, overlap forgiven",
    "words.wer_errors": "insertions, deletions, substitutions; so are cpwer_errors and orcwer_errors",
    "words.cpwer_errors": "see wer_errors",
    "words.orcwer_errors": "see wer_errors",
    "picture": "timeline, a path below this file's folder; null if there is none",
    "counts": "pooled: recordings, done (of these), with_speakers and with_words (scored)",
}

HEAD = ["recording", "length", "speakers found / true", "DER %", "DER % by md-eval", "missed %", "false alarm %",
        "confusion %", "JER %", "WER %", "cpWER %", "orcWER %", "real-time factor", "remarks"]
NONE = "–"
AGREEMENT = {
    True: "DER by md-eval.pl and by pyannote.metrics agree within rounding.",
    False: "DER by md-eval.pl and by pyannote.metrics DISAGREE: believe neither before it is known why.",
    None: "md-eval.pl FAILED, so that DER is by pyannote.metrics alone.",
}


def percent(value):
    return NONE if value is None else f"{100 * value:.2f}"


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def rows(results):
    """Cells of every line, and whether it is a pooled one."""
    for one in results["recordings"]:
        count = one["speaker_count"]
        speakers = f"{count['found']} / {count['true']}" if count else NONE
        if count and count["error"]:
            speakers += f" ({count['error']:+})".replace("-", "−")
        yield _row(one, one["name"], speakers, one["problem"] or _lacking(one)), False
    for pool in results["pooled"]:
        count, n = pool["speaker_count"], pool["counts"]
        speakers = f"{count['right']} of {n['with_speakers']} right" if count else NONE
        remarks = f"{n['done']} of {n['recordings']} done"
        if n["with_words"] not in (0, n["done"]):
            remarks += f", words of {n['with_words']}"
        if n["with_speakers"] != n["done"]:
            remarks += f", speakers of {n['with_speakers']}"
        yield _row(pool, pool["name"], speakers, remarks), True


def title(one):
    """Of a recording's picture."""
    s = one["speakers"]
    if not s or s["der"] is None:
        return one["name"]
    parts = ", ".join(f"{label} {percent(s[key])} %" for key, label in
                      (("missed", "missed"), ("false_alarm", "false alarm"), ("confusion", "confusion")))
    return f"{one['name']}: DER {percent(s['der'])} % ({parts})"


def _lacking(one):
    missing = [key for key in ("speakers", "words") if one[key] is None]
    return f"{' and '.join(missing)}: no reference" if missing else ""


def _row(entry, name, count, remarks):
    speakers, words = entry["speakers"] or {}, entry["words"] or {}
    factor = entry["real_time_factor"]
    return [name, clock(entry["duration_s"]), count,
            *(percent(speakers.get(k)) for k in ("der", "md_eval_der", "missed", "false_alarm", "confusion", "jer")),
            *(percent(words.get(k)) for k in ("wer", "cpwer", "orcwer")),
            NONE if factor is None else f"{factor:.2f}",
            f"**failed**: {remarks}" if entry.get("status") == "failed" else remarks]


def notes(results):
    """What the table does not say by itself, a sentence each."""
    total = results["pooled"][-1]
    if total["speakers"] and total["speakers"]["reference_s"]:
        s = total["speakers"]
        yield (f"Confusion over all recordings: {s['confusion_s']:.1f} s of {s['reference_s']:.1f} s of reference "
               f"speech, {percent(s['confusion'])} %.")
        yield AGREEMENT[results["scorers_agree"]]
    failed = [r["name"] for r in results["recordings"] if r["status"] == "failed"]
    if failed:
        yield f"FAILED: {', '.join(failed)}. Totals are without what has no result."
    versions = ", ".join(f"{k} {v}" for k, v in results["scorers"].items())
    models = ", ".join(m["id"] for m in results["models"]) or "none"
    yield (f"roomscribe {results['roomscribe']} with {models}; {versions}; collar 0, overlap counted; "
           f"words after {results['normalizer']}; {results['seconds']:.0f} s in all.")


def markdown(results):
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for cells, is_pooled in rows(results):
        cells = [c.replace("|", "\\|") for c in cells]
        lines.append(f"| {' | '.join(f'**{c}**' if is_pooled and c and c != NONE else c for c in cells)} |")
    return "\n".join([*lines, "", *notes(results), ""])


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Roomscribe: evaluation</title>
<style>
body {{ font-family: sans-serif; margin: 1.5em auto; max-width: 90em; padding: 0 1em; color: #222; background: #fff }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9em }}
th, td {{ padding: 0.35em 0.6em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }}
th {{ white-space: normal; vertical-align: bottom }}
th:first-child, td:first-child, th:last-child, td:last-child {{ text-align: left }}
td:last-child {{ white-space: normal; min-width: 11em }}
tr.pooled td {{ font-weight: bold; background: #f4f4f4 }}
tr.failed td {{ background: #fdecea }}
figure {{ margin: 2em 0 }}
img {{ max-width: 100%; height: auto }}
</style>
</head>
<body>
<h1>Roomscribe: evaluation</h1>
<p>{made_at}. The same for machines: <a href="results.json">results.json</a>; what was scored, as the scorers were given
it: <a href="scored/">scored/</a>.</p>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{notes}
<h2>Who spoke when</h2>
<p>The reference above, ours below; speakers that stand for each other have one colour, and one of ours that stands for
nobody is grey.</p>
{pictures}
</body>
</html>
"""


def page(results):
    entries = [*results["recordings"], *results["pooled"]]
    body = "\n".join(_line(cells, entry) for (cells, _), entry in zip(rows(results), entries))
    return PAGE.format(made_at=html.escape(results["made_at"]), body=body,
                       head="".join(f"<th>{html.escape(h)}</th>" for h in HEAD),
                       notes="\n".join(f"<p>{html.escape(n)}</p>" for n in notes(results)),
                       pictures="\n".join(_picture(r) for r in results["recordings"] if r["picture"]))


def _line(cells, entry):
    name, *others = (html.escape(c.replace("**", "")) for c in cells)
    if entry.get("picture"):
        name = f'<a href="#{quote(entry["file_id"])}">{name}</a>'
    return f'<tr class="{entry.get("status", "pooled")}">{"".join(f"<td>{c}</td>" for c in (name, *others))}</tr>'


def _picture(one):
    name = html.escape(one["name"])
    return (f'<figure id="{html.escape(one["file_id"])}"><img src="{quote(one["picture"])}" '
            f'alt="Who spoke when in {name}: the reference above, ours below"></figure>')
