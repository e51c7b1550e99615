"""What the model of test_text_generation.py knows by heart.

Apart because both who teaches it and who asks it need them, in two interpreters.
"""

TEXTS = [
    "Der Bär fährt 🚲 über die Brücke, 熊は橋を渡る, и всё.",
    "Once upon a time STOP there was a host. STOPPED again.",
    "<user>Wie geht's?<assistant>Schön, danke 🙂",
    "<system>Kurz.<user>Wie geht's?<assistant>Gut.",
]
