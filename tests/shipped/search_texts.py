"""What the tests of `document-search` put into the index: sentences of seven subjects, and questions that
share few words with them."""

SUBJECTS = {
    "cooking": [
        "Let the dough rest for an hour before you roll it out.",
        "A pinch of salt brings out the flavour of ripe tomatoes.",
        "Simmer the lentils until they are soft, then add cumin.",
        "Whisk the egg whites until they form stiff peaks.",
        "The stew tastes better on the second day.",
    ],
    "space": [
        "The probe passed Saturn and sent back pictures of its rings.",
        "Astronauts aboard the station see sixteen sunrises a day.",
        "Neutron stars are what remains of massive suns that exploded.",
        "The rover drilled into a rock on Mars and found clay.",
        "A comet's tail always points away from the sun.",
    ],
    "money": [
        "The central bank raised interest rates by a quarter of a percent.",
        "Shares of the carmaker lost a tenth of their value on Friday.",
        "Most of her savings are in an index fund with low fees.",
        "The company could not repay its loans and filed for bankruptcy.",
        "Prices in shops rose faster than wages last year.",
    ],
    "medicine": [
        "The vaccine protects children against measles.",
        "She was given antibiotics for an infection of the lungs.",
        "High blood pressure often goes unnoticed for years.",
        "The surgeon replaced his worn-out hip joint.",
        "Wash the wound with clean water and cover it with a bandage.",
    ],
    "sport": [
        "The goalkeeper saved a penalty in the last minute.",
        "He ran the marathon in just under three hours.",
        "The cyclists climbed the steepest pass of the tour in the rain.",
        "Her serve is the fastest in women's tennis.",
        "The team lost the final after extra time.",
    ],
    "music": [
        "The cellist tuned her instrument before the concert.",
        "A choir of forty sang in the old church.",
        "He learned three chords on the guitar and wrote a song.",
        "The orchestra rehearsed the symphony until midnight.",
        "Her first album sold a million copies.",
    ],
    "computing": [
        "The program crashed because it freed the same memory twice.",
        "An index makes the query faster and the writes slower.",
        "Back up the disk before you install the new operating system.",
        "The password was stored in plain text in the log.",
        "Two threads waited for each other's lock, forever.",
    ],
}

#: Documents, as `add` takes them.
DOCUMENTS = [
    {"id": f"{subject}-{number}", "text": text, "metadata": {"subject": subject, "number": number, "long": len(text) > 55}}
    for subject, texts in SUBJECTS.items()
    for number, text in enumerate(texts)
]

#: Each question with the document that answers it.
QUESTIONS = {
    "How long should pastry stand?": "cooking-0",
    "beating eggs for meringue": "cooking-3",
    "spacecraft photographs of a ringed planet": "space-0",
    "geology of the red planet": "space-3",
    "monetary policy tightening": "money-0",
    "an insolvent firm": "money-3",
    "immunization of kids": "medicine-0",
    "hypertension": "medicine-2",
    "long-distance running": "sport-1",
    "soccer goalie stops a spot kick": "sport-0",
    "string player before a performance": "music-0",
    "a record that was a commercial success": "music-4",
    "deadlock": "computing-4",
    "double free bug": "computing-0",
}


def many(count):
    """So many documents, each different."""
    things, places = ["A red kite", "The old tram", "My neighbour's cat", "Some rain", "A choir"], ["hill", "harbour", "market", "roof"]
    return [
        {"id": f"many-{number}", "text": f"{things[number % 5]} was seen over the {places[number % 4]} on day {number}."}
        for number in range(count)
    ]
