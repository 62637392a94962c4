-- Keeps one batch of the owner. Keys 1 to 4. ARGV and the answer: see `append`.
local result = append(1)
if result[1] == 'kept' then return { 'kept', result[3] } end
return result
