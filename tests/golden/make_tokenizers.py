"""Small tokenizers by Hugging Face's libraries, and the ids that those libraries give: run by hand.

    python make_tokenizers.py train   needs tokenizers (0.23.3 was used). Writes tokenizers/ and tokenizers.json
    python make_tokenizers.py check   needs transformers, torch and tinyheads; once with 4.57.6, once with 5.24.0. Saves
                                      a model with each tokenizer by th.save, opens the folder by AutoTokenizer, and
                                      writes into saved_tokenizers.json the files' SHA-256 and the ids. With the
                                      environment's TINYHEADS_GPT2, also for OpenAI's own vocabulary
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FOLDER, EXPECTED, SAVED = HERE / "tokenizers", HERE / "tokenizers.json", HERE / "saved_tokenizers.json"
END = "<|endoftext|>"
CORPUS = ["The theatre's other thing is there, isn't it? They've thought of the weather. " * 3,
          "def f(x):\n    if x:\n        return x  # then\n\n\n\treturn 1", "café naïve e\u0301te\u0301 Ångström ünü",
          "日本語 日本 日本語", "Привет, привет мир", "🙂🙂 👍🏽", "2024 1999 2000 3.14 1,000,000", "banana ananas nanana",
          "...!!! --- === ???", "the  then   there    " + " " * 24 + "end", "aaaa aaaaaaa bbb bbbbbb"]
TEXTS = [
    "", " ", "  ", "Hello world", "the  then ", "\n", "\r\n\r\n", "\t\t x", "a\u00A0b\u2003c\u3000d\u0085e",
    "aaaaaaaab" * 30, "don't we'll I'VE they're it's 'twas 'S ''s", "3.14159 1,000,000 ½ ² ٣ Ⅷ",
    "naïve café Ångström", "e\u0301 a\u0308\u0323 \u0301 \u212b \ufb01", "日本語のテキスト", "Привет мир", "שלום עולם",
    "नमस्ते दुनिया", "🙂👍🏽", "👩‍👩‍👧‍👦 🇳🇱", "\u200b\u200d\ufeff\u202e", "\0\x01\x7f\x80\xff", "\U0010ffff\ue000\ufffe",
    "def f(x):\n    return x  # comment\n\n\n", "\t" * 255 + "end", "a  \n  b",
    "x" + " " * 23 + "y" + " " * 24 + "z" + " " * 25 + "w" + " " * 49, "…—‘’“”", "$$$ @@@!?", END, f"a{END}b",
    f"  {END}  {END}\n", "<|endoftext|", f"<|endoftext{END}", " <|padding|> <pad><pad", "the dog, a dogdog ing",
    "ababab abcabc bcabca xybc xybcxybc yx"]


def train() -> None:
    """Tokenizers of each kind, and the ids of TEXTS, special tokens as such and as plain text."""
    from tokenizers import AddedToken, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers, trainers
    shutil.rmtree(FOLDER, ignore_errors=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())

    def byte_level(model: models.BPE) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def trained(n: int, **options) -> Tokenizer:
        tokenizer = byte_level(models.BPE())
        if options.pop("nfc", False):
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=n, show_progress=False, **options))
        return tokenizer

    whole = trained(340, initial_alphabet=alphabet, special_tokens=[END])
    # As Pythia's: two special tokens, NFC, runs of blanks as added tokens behind the vocabulary.
    blanks = trained(330, initial_alphabet=alphabet, special_tokens=[END, "<|padding|>"], nfc=True)
    blanks.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    # A trained vocabulary as save_pretrained of transformers 4 lays it out, and two tokens added by hand, one in it.
    pair = trained(320, initial_alphabet=alphabet)
    lacking = trained(200, special_tokens=[END])  # without the bytes that the corpus lacks
    # Merges that no trainer makes: `xyb c` and `bc a` never apply, `c abc` makes what another merge made,
    # `xy bc` is what tiktoken would make of `xyb c`, `ab ab` overlaps itself.
    merges = ["b c", "x y", "xy b", "xyb c", "a b", "ab ab", "bc a", "a bc", "abc abc", "c a", "ca bc", "bca bca",
              "y x"]
    pieces = [END, *alphabet[::-1], *dict.fromkeys(merge.replace(" ", "") for merge in merges)]
    untidy = byte_level(models.BPE({piece: i + 3 * (i > 250) for i, piece in enumerate(pieces)},
                                   [tuple(merge.split(" ")) for merge in merges]))
    untidy.add_special_tokens([END])

    in_one_file = {"whole": whole, "blanks": blanks, "lacking": lacking, "untidy": untidy}
    for name, tokenizer in in_one_file.items():
        (FOLDER / name).mkdir(parents=True)
        tokenizer.save(str(FOLDER / name / "tokenizer.json"), pretty=False)
    (FOLDER / "pair").mkdir()
    pair.model.save(str(FOLDER / "pair"))
    n = pair.get_vocab_size()
    (FOLDER / "pair" / "added_tokens.json").write_text(json.dumps({"<pad>": n, "dog": n + 1}))
    pair.add_tokens(["<pad>", "dog"])
    pair.add_special_tokens([END])
    ids = {}
    for name, tokenizer in {**in_one_file, "pair": pair}.items():
        ids[name] = {}
        for kind, as_plain_text in [("plain", True), ("special", False)]:
            tokenizer.encode_special_tokens = as_plain_text
            ids[name][kind] = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    EXPECTED.write_text(json.dumps({"tokenizers": __version__, "texts": TEXTS, "ids": ids}) + "\n")


def check() -> None:
    """What AutoTokenizer makes of the folders that th.save writes; fails where two versions of it differ."""
    import tinyheads as th
    import transformers
    tokenizers = {folder.name: th.load_tokenizer(folder) for folder in sorted(FOLDER.iterdir())}
    tokenizers["bytes_only"] = th.Tokenizer.bytes_only()
    if "TINYHEADS_GPT2" in os.environ:
        tokenizers["gpt2"] = th.load_tokenizer(os.environ["TINYHEADS_GPT2"])
    saved = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, tokenizer in tokenizers.items():
            model = th.GPT2(th.GPT2Config(tokenizer.n_vocab, 8, 4, 1, 1), seed=0)
            path = th.save(model, Path(folder) / name, tokenizer)
            theirs = transformers.AutoTokenizer.from_pretrained(path)
            found = {
                "sha256": {file: hashlib.sha256((path / file).read_bytes()).hexdigest()
                           for file in ["tokenizer.json", "tokenizer_config.json"]},
                "special": [theirs(text).input_ids for text in TEXTS],
                "plain": [theirs(text, split_special_tokens=True).input_ids for text in TEXTS],
                "n_ids": len(theirs), "end": [theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id]}
            versions = saved.get(name, {}).pop("transformers", [])
            if saved.get(name) != found:
                assert not versions, f"{name}: {versions} gave something else: delete {SAVED.name} and check them anew"
            saved[name] = {**found, "transformers": sorted({*versions, transformers.__version__})}
    SAVED.write_text(json.dumps(saved) + "\n")


if __name__ == "__main__":
    {"train": train, "check": check}[sys.argv[1]]()
