-- wrk's script: the bodies of a file in turn, and one line of JSON at the end.
local bodies, turn = {}, 0

function init(arguments)
   for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end
end

function request()
   turn = turn % #bodies + 1
   return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[turn])
end

function done(summary, latency)
   local errors = summary.errors
   local lost = errors.connect + errors.read + errors.write + errors.timeout + errors.status
   io.write(string.format('\n{"requests": %d, "duration_us": %d, "lost": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration, lost, latency:percentile(50), latency:percentile(99)))
end
