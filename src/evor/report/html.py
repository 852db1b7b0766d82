"""The page around a report."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1d2733; background: #f6f7f9; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 2rem; margin: 2rem 0 0; letter-spacing: -0.02em; } h2 { font-size: 1.25rem; margin: 2.6rem 0 0.8rem; }
.facts { color: #5b6b7d; margin: 0.2rem 0 1.5rem; }
figure { margin: 0; background: #fff; border: 1px solid #e3e7ec; border-radius: 10px; padding: 1rem; }
figure img { width: 100%; height: auto; display: block; } figcaption, .note, footer { color: #5b6b7d; font-size: 0.88rem; }
figcaption { margin-top: 0.7rem; }
table { border-collapse: collapse; background: #fff; border: 1px solid #e3e7ec; border-radius: 10px; width: 100%; }
th, td { text-align: right; padding: 0.5rem 0.9rem; border-bottom: 1px solid #eef1f4; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: #5b6b7d; font-size: 0.85rem; } th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; } .main { font-weight: 700; }
footer { margin-top: 3rem; border-top: 1px solid #dde2e8; padding-top: 1rem; } pre { overflow-x: auto; font-size: 0.8rem; }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><main>
{body}
</main></body></html>
"""
