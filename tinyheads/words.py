"""The words that the tasks are made of: everyday ones, each a single token of GPT-2's where that is possible.

Every word here but the ordinals from "eleventh" on is one token, with the blank in front of it, of GPT-2's
vocabulary; all are one token each in the bundled model's (tests/test_prompts.py checks both).
"""

from tinyheads.errors import TaskError
from tinyheads.files.tokenizer import Tokenizer

ORDINALS = ("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
            "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth").split()
WORDINGS = {  # of a Laundry List: what opens it, stands between two items, between list and mentions, and before END
    "list": ("To {verb}:", ",", ". Done:", ". Still to {verb}: the"),
    "note": ("Things to {verb}:", ",", ". Things that are done:", ". The one thing that is left to {verb} is the"),
    "sentence": ("I had to {verb} the", ", the", ". I am done with the", ". So I still have to {verb} the"),
    "story": ("Mary had to {verb} the", ", the", ". John did the", ". So Mary only had to {verb} the"),
}
VERBS = "wash buy pack find clean".split()  # what is to be done with the items of a list
PLACES = ("store school office park garden station market library restaurant hospital house church beach farm museum "
          "theater airport bank hotel lake").split()
THINGS = "drink book ball letter flower coin card gift".split()
ITEMS = """
    shirt sock hat coat towel dress jacket belt scarf glove boot shoe sweater skirt tie cap vest robe blanket pillow
    sheet curtain apple pear lemon orange peach plum cherry grape banana coconut mango onion carrot potato tomato
    pepper pumpkin bean corn cabbage garlic mushroom spinach bread butter cheese milk cream egg honey sugar salt rice
    flour oil vinegar sauce soup salad cake cookie pie candy chocolate jam coffee tea juice wine beer water soda plate
    bowl cup mug glass fork knife spoon pan pot kettle jar bottle basket bucket tray lid oven stove fridge sink table
    chair desk bench bed sofa couch shelf lamp mirror clock rug carpet door window key lock bell candle book pen
    pencil paper notebook letter envelope stamp card map magazine newspaper diary ruler brush paint ink hammer nail
    saw drill screw wrench axe shovel rope chain wire wheel tire ladder broom sponge soap shampoo razor comb ball bat
    racket puzzle doll toy drum guitar piano violin trumpet whistle camera radio phone laptop tablet keyboard mouse
    monitor printer battery cable charger dog cat horse cow pig sheep goat duck chicken goose rabbit turtle frog fish
    bird owl eagle hawk wolf fox bear lion tiger monkey elephant snake spider ant bee butterfly tree flower rose leaf
    seed root branch stone rock shell feather pearl diamond ring crown necklace bracelet watch coin wallet purse bag
    backpack suitcase umbrella car bus train bike boat ship truck van plane tent flag sword shield helmet mask statue
    frame box crate barrel cart sled needle thread button ribbon fabric cotton wool silk leather metal gold silver
    iron copper steel brick tile glue tape pizza burger sandwich pasta steak bacon sausage ham turkey salmon tuna
    shrimp crab lobster magnet compass telescope microscope robot rocket balloon ticket poster album novel poem photo
    medal trophy badge coupon receipt
""".split()
NAMES = """
    Mary John Tom James Dan Martin Amy David Robert Michael William Joseph Thomas Charles Daniel Matthew Anthony Mark
    Paul Steven Andrew Kenneth George Joshua Kevin Brian Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary Nicholas
    Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Frank Alexander Raymond Patrick Jack
    Dennis Jerry Tyler Aaron Jose Adam Nathan Henry Peter Kyle Walter Ethan Jeremy Harold Keith Christian Roger Noah
    Gerald Carl Terry Sean Arthur Lawrence Jesse Dylan Bryan Joe Billy Bruce Albert Willie Gabriel Logan Alan Juan
    Wayne Roy Ralph Randy Eugene Vincent Russell Louis Philip Bobby Johnny Bradley Sarah Karen Lisa Nancy Betty
    Margaret Sandra Ashley Kimberly Emily Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Laura Sharon
    Cynthia Kathleen Helen Angela Anna Ruth Brenda Pamela Nicole Katherine Samantha Christine Emma Catherine Rachel
    Carolyn Janet Maria Heather Diane Julie Joyce Victoria Kelly Christina Joan Lauren Judith Olivia Martha Cheryl
    Megan Andrea Ann Alice Jean Hannah Kathryn Gloria Teresa Sara Julia Grace Judy Theresa Beverly Denise Marilyn
    Amber Danielle Brittany Diana Jane Lori Alexis Kate Lucy Susan Linda Barbara Jennifer Elizabeth Patricia Jessica
""".split()


def single_tokens(tokenizer: Tokenizer, words: list[str], least: int, what: str) -> list[str]:
    """Those of the words that are one token behind a blank, in their order. Raises TaskError for fewer than `least`."""
    whole = [word for word in dict.fromkeys(words) if len(tokenizer.encode(f" {word}")) == 1]
    if len(whole) < least:
        split = [word for word in words if word not in whole]
        raise TaskError(f"{least} {what} are needed, and of the {len(words)} here only {len(whole)} are one token "
                        f"each{f'; this tokenizer splits {split[:3]}' if split else ''}")
    return whole


def in_one_token(tokenizer: Tokenizer, words: list[str], n: int) -> list[str]:
    """The first n of the words, every one of which must be one token. Raises TaskError."""
    if n > len(words):
        raise TaskError(f"there are ordinals for lists of up to {len(words)} items, not {n}")
    split = [k for k in range(n) if len(tokenizer.encode(f" {words[k]}")) != 1]
    if split:
        raise TaskError(f"this tokenizer splits {words[split[0]]!r}: it can name {split[0]} places by ordinal, "
                        f"not {n}; shorter lists, or by='name', will do")
    return words[:n]
