"""The style sheet of the report's page: for wide and narrow screens, light and dark, and for paper."""

STYLE_SHEET = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --quiet: #595959; --line: #d4d4d4;
  --tint: #f5f5f2; --link: #00508a; --right: #00664a; --wrong: #a33c00; --alarm: #fff3df; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e9e9e6; --quiet: #a9a9a4; --line: #3d4045;
  --tint: #202327; --link: #8cc4f2; --right: #5fd0ab; --wrong: #ffa477; --alarm: #3a2d17; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 0 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 1.5rem 0 .5rem; line-height: 1.2; }
h2 { font-size: 1.4rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h4 { font-size: 1rem; margin: 0 0 .5rem; }
nav { position: sticky; top: 0; z-index: 2; display: flex; gap: 1rem; overflow-x: auto; padding: .5rem 0;
  background: var(--paper); border-bottom: 1px solid var(--line); white-space: nowrap; font-size: .9rem; }
a { color: var(--link); }
section { scroll-margin-top: 3rem; }
small, .notes, figcaption, caption { color: var(--quiet); font-size: .85rem; }
.notes { margin: .5rem 0 0; padding-left: 1.1rem; }
.alarm { margin: 1rem 0; padding: .7rem 1rem .7rem 2rem; background: var(--alarm); border-radius: .4rem; }
header p, .notes, .alarm, figcaption { max-width: 62rem; }
.scroll { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
th.number, td.number { text-align: right; }
.scroll td, thead th { white-space: nowrap; }
td small { color: inherit; font-size: .8em; }
th[scope=row] { font-weight: 600; }
.scroll th:first-child { position: sticky; left: 0; background: var(--paper); }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #ffffff; padding: .4rem;
  border-radius: .4rem; border: 1px solid var(--line); }
figure picture img { width: 100%; max-width: 46rem; }
figcaption { margin-top: .4rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin: 1rem 0; }
.case { padding: .8rem; background: var(--tint); border-radius: .4rem; border-top: 4px solid var(--right); }
.case.lost { border-top-color: var(--wrong); }
.case p { margin: .4rem 0; }
.case table { width: 100%; }
.case td { overflow-wrap: anywhere; }
.case th { overflow-wrap: break-word; max-width: 10rem; }
.case tr td:last-child { white-space: nowrap; width: 1%; }
.right td:last-child { color: var(--right); }
.wrong td:last-child { color: var(--wrong); }
.asked { display: block; width: 9rem; height: auto; image-rendering: pixelated; background: #ffffff; }
@media (max-width: 620px) { .pair { grid-template-columns: 1fr; } body { padding: 0 .7rem 3rem; }
  th, td { padding: .25rem .45rem; } .scroll th:first-child { max-width: 8rem; } }
@media print { :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --quiet: #444444; --line: #bbbbbb;
  --tint: #ffffff; --link: #000000; --right: #00523b; --wrong: #8a3300; --alarm: #ffffff; }
  @page { margin: 14mm; } body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  .scroll { overflow: visible; } .scroll th:first-child { position: static; }
  .scroll table { font-size: 7pt; } th, td { padding: 1.5pt 3pt; } .scroll td, thead th { white-space: normal; }
  figure, .pair, tr { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  .case, .alarm { border: 1px solid var(--line); } figure picture img { max-width: 15cm; }
  .asked { width: 2.6cm; } .case { font-size: 8.5pt; } .case th, .case td { padding: 1pt 3pt; } }
"""
