"""Three example command lines for the help page of each command, from simple to advanced."""

EXAMPLES: dict[str, tuple[str, str, str]] = {
    "demo": ("toolchain demo", "toolchain demo -o ./demo-bundle", "toolchain demo --json"),
    "export": (
        "toolchain export -m demo",
        "toolchain export ./my-checkpoint -o ./bundle",
        "toolchain export ./my-checkpoint --max-length 256 --atol 1e-3",
    ),
    "calibrate": (
        "toolchain calibrate -m demo",
        "toolchain calibrate ./my-checkpoint --data ./my-data --calib-method auto",
        "toolchain calibrate engines/build/demo-demo-int8 --calib-samples 1024 --calib-method mse",
    ),
    "build": (
        "toolchain build -m demo --precision int8 --max-drop 1",
        "toolchain build ./my-checkpoint --task custom --data ./my-data --text-column body --label-column topic",
        "toolchain build ./my-checkpoint --precision fp16 --backend trt -o ./bundle",
    ),
    "eval": (
        "toolchain eval",
        "toolchain eval ./bundle --backend torch --limit 200",
        "toolchain eval ./bundle --backend ort --energy --json",
    ),
    "predict": (
        'toolchain predict ./bundle "The service was charming."',
        "toolchain predict ./bundle --data reviews.csv --text-column body -o labels.csv",
        "toolchain predict ./bundle --json < texts.txt",
    ),
    "generate": (
        'toolchain generate ./my-language-model --prompt "The service was"',
        "toolchain generate ./my-language-model --data prompts.csv --text-column body --batch-size 8",
        'toolchain generate ./my-language-model --prompt "The service was" --cache dynamic,none --energy --json',
    ),
    "compare": (
        "toolchain compare ./bundle --max-drop 0.5",
        "toolchain compare ./fp16 ./int8",
        "toolchain compare ./fp32 ./int8 --energy --backend ort",
    ),
    "verify": (
        "toolchain verify ./bundle",
        "toolchain verify ./bundle --backend torch --precision bf16",
        "toolchain verify model.onnx --data ./my-data",
    ),
    "explain": (
        "toolchain explain ./bundle",
        "toolchain explain ./bundle --file model.int8.onnx",
        "toolchain explain ./bundle --backend trt",
    ),
    "tune": (
        "toolchain tune ./bundle --max-drop 0.5",
        "toolchain tune ./bundle --max-drop 0.5 --budget 80",
        "toolchain tune ./bundle --data ./my-data --json",
    ),
    "shrink": (
        "toolchain shrink -m demo --ffn 0.5 --steps 300 -o ./small",
        "toolchain shrink -m ./my-checkpoint --task sst2 --data ./my-data --target-speed 2 --minutes 30 -o ./small",
        "toolchain shrink -m ./my-checkpoint --ffn 0.5 --layers 4 --max-drop 1 -o ./small --json",
    ),
    "heal": (
        "toolchain heal ./bundle --max-drop 0.5",
        "toolchain heal ./bundle --seed 1 --strict",
        "toolchain heal ./bundle --steps 300 --data ./my-data --json",
    ),
    "cascade": (
        "toolchain cascade --lexical ./bundle -o ./both --max-drop 1",
        "toolchain cascade ./small ./bundle -o ./both --calib-data ./labelled",
        "toolchain cascade --lexical ./bundle -o ./both --json",
    ),
    "profile": (
        "toolchain profile ./bundle",
        "toolchain profile ./bundle --trace trace.json",
        "toolchain profile ./bundle --energy",
    ),
    "estimate": (
        "toolchain estimate ./bundle --gpu t4",
        "toolchain estimate ./bundle --gpu h200 --precision fp16 --json",
        "toolchain estimate ./bundle --gpu t4 --idle-power 10",
    ),
    "accept": (
        "toolchain accept",
        "toolchain accept -m ./my-checkpoint --data ./my-data -o ./report",
        "toolchain accept engines/t4.toml --max-drop 0.5",
    ),
    "sweep": (
        "toolchain sweep eval/sweep.toml --dry-run",
        "toolchain sweep eval/sweep.toml --only 'int8*'",
        "toolchain sweep eval/glue.toml --set model='models/bert-{task}' --json",
    ),
    "clocks": (
        "toolchain clocks ./bundle",
        "toolchain clocks ./bundle --backend trt --max-slowdown 1.1 --apply",
        "toolchain clocks ./bundle --sm-clocks 600,900,1200 --power --json",
    ),
    "report": (
        "toolchain report ./bundle",
        "toolchain report ./bundle -o report.html",
        "toolchain report ./fp16 ./int8 --format csv",
    ),
    "serve": (
        "toolchain serve ./bundle",
        "toolchain serve ./bundle --http-port 8080 --no-grpc",
        "toolchain serve ./bundle --host 0.0.0.0 --token-file token.txt",
    ),
    "ship": (
        "toolchain ship triton ./bundle -o repository --name sentiment",
        "toolchain ship triton --lint repository",
        "toolchain ship service ./bundle -o service",
    ),
    "push": (
        "toolchain push ./bundle USER/NAME --dry-run",
        "toolchain push ./bundle USER/NAME",
        "toolchain push ./bundle USER/NAME --public",
    ),
    "power": (
        "toolchain power -- python train.py",
        "toolchain power --seconds 10",
        "toolchain power -o power.svg -- sleep 5",
    ),
    "completion": (
        "toolchain completion bash > ~/.local/share/bash-completion/completions/toolchain",
        "toolchain completion zsh > ~/.zfunc/_toolchain",
        "toolchain completion fish > ~/.config/fish/completions/toolchain.fish",
    ),
    "doctor": ("toolchain doctor", "toolchain doctor --json", "toolchain doctor -v"),
}
